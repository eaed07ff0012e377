# Settings, data set, index.


localrules:
    stage_config,


rule stage_config:
    output:
        "results/{run}/config/{stage}.json",
    log:
        log_of("config_{stage}"),
    benchmark:
        benchmark_of("config_{stage}")
    wildcard_constraints:
        stage="|".join(SECTIONS),
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=memory(500),
        runtime=5,
        gpu=0,
    params:
        settings=settings_json,
    message:
        "settings of {wildcards.run}: {wildcards.stage}"
    shell:
        "wsss config write --stage {wildcards.stage} --settings {params.settings:q}"
        " --output {output:q} 2>&1 | tee {log:q}"


rule demo_data:
    output:
        **written_folder(DEMO_ROOT),
    log:
        "results/logs/demo_data.log",
    benchmark:
        "results/benchmarks/demo_data.tsv"
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        **resources("demo_data", mem_mb=2000, runtime=10),
    params:
        **params("demo_data"),
    shell:
        COMMAND


rule index:
    input:
        unpack(inputs("index")),
        demo=demo_data,
    output:
        **outputs("index"),
        classes="results/{run}/classes.txt",
        contents=f"results/{{run}}/{PICTURES}",
    log:
        log_of("index"),
    benchmark:
        benchmark_of("index")
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        **resources("index", mem_mb=4000, runtime=120),
    params:
        **params("index"),
        listing=image_list,
    shell:
        COMMAND


# COCO's outlines as label PNGs, in the data set's folder: once, whatever number of runs use it.
rule coco_masks:
    output:
        **outputs("coco_masks"),
    log:
        log_of("coco_masks"),
    benchmark:
        benchmark_of("coco_masks")
    conda:
        ENVIRONMENT
    threads: all_cores
    resources:
        **resources("coco_masks", mem_mb=8000, runtime=240, all_threads=True),
    params:
        **params("coco_masks"),
        listing=partial(listing, function_name="mask_fingerprint"),
    shell:
        COMMAND


# Apart from the index, so that what is known of masks can never rerun training.
rule masks:
    input:
        unpack(inputs("masks")),
        demo=demo_data,
        drawn=drawn_masks,
    output:
        **outputs("masks"),
        contents=f"results/{{run}}/{MASKS}",
    log:
        log_of("masks"),
    benchmark:
        benchmark_of("masks")
    # Before any training: what is wrong with a mask is said at the start.
    priority: 100
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        **resources("masks", mem_mb=4000, runtime=120),
    params:
        **params("masks"),
        listing=partial(listing, function_name="mask_fingerprint"),
    shell:
        COMMAND


# Those of the pictures that are trained on, for a segmentation that learns from masks: the others
# only score, and a change of them trains nothing.
use rule masks as masks_trained with:
    output:
        output="results/{run}/training_masks/masks.csv",
        contents=f"results/{{run}}/training_masks/{MASKS}",
    log:
        log_of("masks_trained"),
    benchmark:
        benchmark_of("masks_trained")
    params:
        **params("masks", "--trained true"),
        listing=training_masks,
