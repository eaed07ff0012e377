# The classifier and its class activation maps.


# With a reconstructor, which the figures show.
rule cam:
    input:
        unpack(inputs("cam")),
    output:
        **outputs("cam"),
    log:
        log_of("cam"),
    benchmark:
        benchmark_of("cam")
    wildcard_constraints:
        run=runs_pattern(has_reconstructor),
    conda:
        ENVIRONMENT
    threads: training_threads
    resources:
        **resources("cam", mem_mb=32000, runtime=2880),
    params:
        **params("cam"),
    shell:
        COMMAND


# Methods that have none, and children, whose reconstructors nobody looks at.
use rule cam as cam_alone with:
    output:
        **outputs("cam", without="reconstructor_output"),
    wildcard_constraints:
        run=rf"{runs_pattern(lambda run: not has_reconstructor(run))}|{RUN_NAME}/(ablation|methods)/.+",


# For runs whose maps are similarities to these clusters.
rule lpcam:
    input:
        unpack(inputs("lpcam")),
    output:
        **outputs("lpcam"),
    log:
        log_of("lpcam"),
    benchmark:
        benchmark_of("lpcam")
    conda:
        ENVIRONMENT
    threads: whole_machine
    resources:
        **resources("lpcam", mem_mb=16000, runtime=720),
    params:
        **params("lpcam"),
    shell:
        COMMAND


rule export:
    input:
        unpack(inputs("export")),
        unpack(shards("export")),
    output:
        **outputs("export"),
    log:
        log_of("export"),
    benchmark:
        benchmark_of("export")
    conda:
        ENVIRONMENT
    threads: computing_threads
    resources:
        **resources("export", mem_mb=16000, runtime=720),
    params:
        **params("export"),
    shell:
        COMMAND


# Before the shards of whatever follows: the background scores that are `auto`, for all alike.
rule choose_thresholds:
    input:
        unpack(inputs("choose_thresholds")),
    output:
        **outputs("choose_thresholds"),
    log:
        log_of("choose_thresholds"),
    benchmark:
        benchmark_of("choose_thresholds")
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        **resources("choose_thresholds", mem_mb=4000, runtime=60),
    params:
        **params("choose_thresholds"),
    shell:
        COMMAND


# One job's part of the images, where several share the stage.
use rule export as export_shard with:
    input:
        unpack(inputs("export")),
    output:
        part=part("export"),
    log:
        log_of("shards/export_{part}-of-{total}"),
    benchmark:
        benchmark_of("shards/export_{part}-of-{total}")
