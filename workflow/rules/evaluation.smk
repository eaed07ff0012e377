# Scores, curves, panels and the table.


# Seconds of work, for which no cluster is asked.
localrules:
    collect,
    done,


rule score_maps:
    input:
        unpack(inputs("score_maps")),
        maps=scored_maps,
    output:
        **captioned(outputs("score_maps"), "plot", "curve"),
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
        table="self_label|segmentation(_crf)?",
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        **resources("score_labels", mem_mb=4000, runtime=120),
    params:
        **params("score_labels", scored_labels_options),
    shell:
        COMMAND


# What can be said without masks.
rule score_tags:
    input:
        unpack(inputs("score_tags")),
        unpack(final_labels),
    output:
        **captioned(outputs("score_tags"), "output", "tags"),
    log:
        log_of("score_tags"),
    benchmark:
        benchmark_of("score_tags")
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        **resources("score_tags", mem_mb=2000, runtime=60),
    params:
        **params("score_tags", scored_tags_options),
    shell:
        COMMAND


rule panels:
    input:
        unpack(inputs("panels")),
        unpack(shown),
    output:
        **captioned(outputs("panels"), "output", "panels", patterns=["{name}.png"]),
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
        **captioned(outputs("collect"), "output", "miou"),
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


rule report:
    input:
        unpack(inputs("report")),
        # The page reads them, and whatever else lies in the run's folder.
        shown=everything,
    output:
        **captioned(outputs("report"), "output", "report"),
    log:
        log_of("report"),
    benchmark:
        benchmark_of("report")
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        **resources("report", mem_mb=4000, runtime=60),
    params:
        **params("report", lambda wildcards: words(folder=f"results/{wildcards.run}")),
    shell:
        COMMAND


# All that a run is for, with or without masks; the file lists what there is, with checksums.
rule done:
    input:
        everything,
        "results/{run}/report.html",
    output:
        "results/{run}/done",
    log:
        log_of("done"),
    benchmark:
        benchmark_of("done")
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=memory(500),
        runtime=5,
        gpu=0,
    shell:
        "sha256sum {input:q} > {output:q} 2> {log:q}"
