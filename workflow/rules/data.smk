# Settings, data set, index.


localrules:
    stage_config,


rule stage_config:
    output:
        "results/{run}/config/{stage}.json",
    log:
        "results/{run}/logs/config_{stage}.log",
    benchmark:
        "results/{run}/benchmarks/config_{stage}.tsv"
    wildcard_constraints:
        stage="|".join(STAGES),
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
        data=directory(DEMO_ROOT),
        manifest=f"{DEMO_ROOT}.sha256",
    log:
        "results/logs/demo_data.log",
    benchmark:
        "results/benchmarks/demo_data.tsv"
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=memory(2000),
        runtime=10,
        gpu=0,
    params:
        code=code("wsss.data.formats.demo_pictures"),
    shell:
        "wsss demo-data --output {output.data:q} --manifest {output.manifest:q}"
        " 2>&1 | tee {log:q}"


rule index:
    input:
        config="results/{run}/config/index.json",
        demo=demo_data,
    output:
        index="results/{run}/index.csv",
        classes="results/{run}/classes.txt",
    log:
        "results/{run}/logs/index.log",
    benchmark:
        "results/{run}/benchmarks/index.tsv"
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=memory(4000),
        runtime=120,
        gpu=0,
        root=root,
    params:
        code=code("wsss.data.build"),
        listing=partial(listing, function_name="listing_fingerprint"),
    shell:
        "wsss index --config {input.config:q} --root {resources.root:q}"
        " --output {output.index:q} 2>&1 | tee {log:q}"


# COCO's outlines as label PNGs, in the data set's folder: once, whatever number of runs use it.
rule coco_masks:
    output:
        record="results/{run}/coco_masks.json",
    log:
        "results/{run}/logs/coco_masks.log",
    benchmark:
        "results/{run}/benchmarks/coco_masks.tsv"
    conda:
        ENVIRONMENT
    threads: whole_machine
    resources:
        mem_mb=memory(8000),
        runtime=240,
        gpu=0,
        root=root,
    params:
        code=code("wsss.data.formats.coco_masks"),
        listing=partial(listing, function_name="mask_fingerprint"),
    shell:
        "wsss coco-masks --root {resources.root:q} --record {output.record:q}"
        " --workers {threads} 2>&1 | tee {log:q}"


# Apart from the index, so that what is known of masks can never rerun training.
rule masks:
    input:
        config="results/{run}/config/index.json",
        index="results/{run}/index.csv",
        demo=demo_data,
        drawn=drawn_masks,
    output:
        masks="results/{run}/masks.csv",
    log:
        "results/{run}/logs/masks.log",
    benchmark:
        "results/{run}/benchmarks/masks.tsv"
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=memory(4000),
        runtime=120,
        gpu=0,
        root=root,
    params:
        code=code("wsss.data.build"),
        listing=partial(listing, function_name="mask_fingerprint"),
    shell:
        "wsss masks --config {input.config:q} --root {resources.root:q} --index {input.index:q}"
        " --output {output.masks:q} 2>&1 | tee {log:q}"
