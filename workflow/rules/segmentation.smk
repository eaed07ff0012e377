# The segmentation model, trained on pseudo-labels, and its predictions.


rule train_segmentation:
    input:
        unpack(training_labels),
        config="results/{run}/config/segmentation.json",
        index=index_file("index.csv"),
    output:
        model="results/{run}/segmentation/model.safetensors",
    log:
        "results/{run}/logs/train_segmentation.log",
    benchmark:
        "results/{run}/benchmarks/train_segmentation.tsv"
    conda:
        ENVIRONMENT
    threads: training_threads
    resources:
        mem_mb=memory(32000),
        runtime=2880,
        gpu=training_gpus,
        root=root,
        program=TRAIN,
        compute=partial(training_compute, stage="segmentation"),
        weights=partial(weights, stage="segmentation"),
    params:
        code=code("wsss.segmentation.training"),
        weights=weights_fingerprint("segmentation"),
        source=lambda wildcards, input: options(input, "labels", "masks"),
    shell:
        "{resources.program} train-segmentation --config {input.config:q} {params.source}"
        " --index {input.index:q} --root {resources.root:q}"
        " {resources.weights} --output {output.model:q}"
        " --work-dir results/{wildcards.run}/segmentation/work"
        " {resources.compute} 2>&1 | tee {log:q}"


rule predict:
    input:
        unpack(reads("prediction")),
        unpack(shards("prediction")),
    output:
        labels=directory("results/{run}/predictions"),
        manifest="results/{run}/predictions.sha256",
    log:
        "results/{run}/logs/predict.log",
    benchmark:
        "results/{run}/benchmarks/predict.tsv"
    wildcard_constraints:
        run=runs_pattern(lambda run: not has_crf(run)),
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
        code=code("wsss.segmentation.prediction"),
        results=result_options,
    shell:
        "wsss predict-split --config {input.config:q} --model {input.model:q}"
        " --index {input.index:q} --root {resources.root:q} {params.results}"
        " {resources.compute} 2>&1 | tee {log:q}"


use rule predict as predict_crf with:
    output:
        labels=directory("results/{run}/predictions"),
        manifest="results/{run}/predictions.sha256",
        labels_crf=directory("results/{run}/predictions_crf"),
        manifest_crf="results/{run}/predictions_crf.sha256",
    wildcard_constraints:
        run=runs_pattern(has_crf),


# One job's part of the images, where several share the stage.
use rule predict as predict_shard with:
    input:
        unpack(reads("prediction")),
    output:
        part=temp(directory("results/{run}/shards/prediction/{part}-of-{total}")),
    log:
        "results/{run}/logs/shards/predict_{part}-of-{total}.log",
    benchmark:
        "results/{run}/benchmarks/shards/predict_{part}-of-{total}.tsv"
    wildcard_constraints:
        run=RUN_NAME,


# A few images of the seeds' split, for the panels.
rule predict_sample:
    input:
        config="results/{run}/config/prediction.json",
        sample="results/{run}/config/evaluation.json",
        model="results/{run}/segmentation/model.safetensors",
        index=index_file("index.csv"),
    output:
        labels=directory("results/{run}/sample"),
        manifest="results/{run}/sample.sha256",
    log:
        "results/{run}/logs/predict_sample.log",
    benchmark:
        "results/{run}/benchmarks/predict_sample.tsv"
    conda:
        ENVIRONMENT
    threads: whole_machine
    resources:
        mem_mb=memory(8000),
        runtime=30,
        gpu=gpus,
        root=root,
        compute=COMPUTE,
    params:
        code=code("wsss.segmentation.prediction"),
    shell:
        "wsss predict-split --config {input.config:q} --sample {input.sample:q}"
        " --model {input.model:q} --index {input.index:q} --root {resources.root:q}"
        " --output {output.labels:q} --manifest {output.manifest:q} {resources.compute}"
        " 2>&1 | tee {log:q}"
