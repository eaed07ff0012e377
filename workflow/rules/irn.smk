# IRN: confident labels, affinities, random walk.


rule labels:
    input:
        unpack(inputs("labels")),
        unpack(shards("labels")),
    output:
        **outputs("labels"),
    log:
        log_of("labels"),
    benchmark:
        benchmark_of("labels")
    conda:
        ENVIRONMENT
    threads: computing_threads
    resources:
        **resources("labels", mem_mb=8000, runtime=720),
    params:
        **params("labels"),
    shell:
        COMMAND


# One job's part of the images, where several share the stage.
use rule labels as labels_shard with:
    input:
        unpack(inputs("labels")),
    output:
        part=part("labels"),
    log:
        log_of("shards/labels_{part}-of-{total}"),
    benchmark:
        benchmark_of("shards/labels_{part}-of-{total}")


rule irn:
    input:
        unpack(inputs("irn")),
    output:
        **outputs("irn"),
    log:
        log_of("irn"),
    benchmark:
        benchmark_of("irn")
    conda:
        ENVIRONMENT
    threads: training_threads
    resources:
        **resources("irn", mem_mb=32000, runtime=1440),
    params:
        **params("irn"),
    shell:
        COMMAND


# For walked maps whose background score is `auto`.
rule choose_walk_threshold:
    input:
        unpack(inputs("choose_walk_threshold")),
    output:
        **outputs("choose_walk_threshold"),
    log:
        log_of("choose_walk_threshold"),
    benchmark:
        benchmark_of("choose_walk_threshold")
    conda:
        ENVIRONMENT
    threads: whole_machine
    resources:
        **resources("choose_walk_threshold", mem_mb=8000, runtime=60),
    params:
        **params("choose_walk_threshold"),
    shell:
        COMMAND


rule pseudo_labels:
    input:
        unpack(inputs("pseudo_labels")),
        unpack(shards("pseudo_labels")),
    output:
        **outputs("pseudo_labels"),
    log:
        log_of("pseudo_labels"),
    benchmark:
        benchmark_of("pseudo_labels")
    conda:
        ENVIRONMENT
    threads: computing_threads
    resources:
        **resources("pseudo_labels", mem_mb=16000, runtime=1440),
    params:
        **params("pseudo_labels"),
    shell:
        COMMAND


# One job's part of the images, where several share the stage.
use rule pseudo_labels as pseudo_labels_shard with:
    input:
        unpack(inputs("pseudo_labels")),
    output:
        part=part("pseudo_labels"),
    log:
        log_of("shards/pseudo_labels_{part}-of-{total}"),
    benchmark:
        benchmark_of("shards/pseudo_labels_{part}-of-{total}")
