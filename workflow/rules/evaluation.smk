# Scores, curves, panels and the table.


# Seconds of work, for which no cluster is asked.
localrules:
    collect,


rule score_maps:
    input:
        unpack(inputs("score_maps")),
        maps=scored_maps,
    output:
        **outputs("score_maps"),
    log:
        log_of("score_maps_{table}"),
    benchmark:
        benchmark_of("score_maps_{table}")
    wildcard_constraints:
        table="cam|pseudo_label",
    conda:
        ENVIRONMENT
    threads: helper_threads
    resources:
        **resources("score_maps", mem_mb=8000, runtime=240),
    params:
        **params("score_maps", scored_maps_options),
    shell:
        COMMAND


rule score_labels:
    input:
        unpack(inputs("score_labels")),
        unpack(scored_labels),
    output:
        **outputs("score_labels"),
    log:
        log_of("score_labels_{table}"),
    benchmark:
        benchmark_of("score_labels_{table}")
    wildcard_constraints:
        table="segmentation(_crf)?",
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        **resources("score_labels", mem_mb=4000, runtime=120),
    params:
        **params("score_labels", scored_labels_options),
    shell:
        COMMAND


rule panels:
    input:
        unpack(inputs("panels")),
        unpack(shown),
    output:
        **outputs("panels"),
    log:
        log_of("panels"),
    benchmark:
        benchmark_of("panels")
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        **resources("panels", mem_mb=4000, runtime=30),
    params:
        **params("panels", panel_images),
    shell:
        COMMAND


rule collect:
    input:
        unpack(inputs("collect")),
        scores=scores,
        # Not read here: who asks for the table also wants to see the pictures.
        panels="results/{run}/panels.sha256",
    output:
        **outputs("collect"),
    log:
        log_of("collect"),
    benchmark:
        benchmark_of("collect")
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        **resources("collect", mem_mb=1000, runtime=10),
    params:
        **params("collect"),
    shell:
        COMMAND
