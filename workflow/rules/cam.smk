# The classifier and its class activation maps.


# With a reconstructor, which the figures show.
rule train_cam:
    input:
        config="results/{run}/config/cam.json",
        index=index_file("index.csv"),
    output:
        model="results/{run}/cam/model.safetensors",
        reconstructor="results/{run}/cam/reconstructor.safetensors",
    log:
        "results/{run}/logs/train_cam.log",
    benchmark:
        "results/{run}/benchmarks/train_cam.tsv"
    wildcard_constraints:
        run=runs_pattern(has_reconstructor),
    conda:
        ENVIRONMENT
    threads: training_threads
    resources:
        mem_mb=memory(32000),
        runtime=2880,
        gpu=training_gpus,
        root=root,
        program=TRAIN,
        compute=partial(training_compute, stage="cam"),
        weights=partial(weights, stage="cam"),
    params:
        code=code("wsss.cam.training"),
        weights=weights_fingerprint("cam"),
        reconstructor=lambda wildcards, output: options(
            {"reconstructor-output": output.get("reconstructor")}, "reconstructor-output"
        ),
    shell:
        "{resources.program} train-cam --config {input.config:q} --index {input.index:q}"
        " --root {resources.root:q} {resources.weights}"
        " --output {output.model:q} {params.reconstructor}"
        " --work-dir results/{wildcards.run}/cam/work"
        " {resources.compute} 2>&1 | tee {log:q}"


# Methods that have none, and ablations, whose reconstructors nobody looks at.
use rule train_cam as train_cam_alone with:
    output:
        model="results/{run}/cam/model.safetensors",
    wildcard_constraints:
        run=rf"{runs_pattern(lambda run: not has_reconstructor(run))}|{RUN_NAME}/ablation/.+",


rule export_cams:
    input:
        unpack(reads("export")),
        unpack(shards("export")),
    output:
        cams="results/{run}/cams.h5",
    log:
        "results/{run}/logs/export_cams.log",
    benchmark:
        "results/{run}/benchmarks/export_cams.tsv"
    conda:
        ENVIRONMENT
    threads: computing_threads
    resources:
        mem_mb=computing_memory(16000),
        runtime=720,
        gpu=computing_gpus,
        root=root,
        compute=COMPUTE,
    params:
        code=code("wsss.cam.export"),
        attention=lambda wildcards, input: options(input, "attention_model"),
        results=result_options,
    shell:
        "wsss export-cams --config {input.config:q} --model {input.model:q}"
        " --index {input.index:q} --root {resources.root:q} {params.attention}"
        " {params.results} {resources.compute} 2>&1 | tee {log:q}"


# One job's part of the images, where several share the stage.
use rule export_cams as export_cams_shard with:
    input:
        unpack(reads("export")),
    output:
        part=temp(directory("results/{run}/shards/export/{part}-of-{total}")),
    log:
        "results/{run}/logs/shards/export_cams_{part}-of-{total}.log",
    benchmark:
        "results/{run}/benchmarks/shards/export_cams_{part}-of-{total}.tsv"
