# IRN: confident labels, affinities, random walk. Folders are `ancient` and come with a manifest
# of their content: Snakemake only knows a folder's time, which copying or touching changes.


rule irn_labels:
    input:
        unpack(reads("labels")),
        unpack(shards("labels")),
    output:
        labels=directory("results/{run}/irn/labels"),
        manifest="results/{run}/irn/labels.sha256",
    log:
        "results/{run}/logs/irn_labels.log",
    benchmark:
        "results/{run}/benchmarks/irn_labels.tsv"
    conda:
        ENVIRONMENT
    threads: computing_threads
    resources:
        mem_mb=computing_memory(8000),
        runtime=720,
        gpu=0,
        root=root,
        compute=COMPUTE,
    params:
        code=code("wsss.irn.labels"),
        results=result_options,
    shell:
        "wsss irn-labels --config {input.config:q} --cams {input.cams:q}"
        " --index {input.index:q} --root {resources.root:q} {params.results}"
        " {resources.compute} 2>&1 | tee {log:q}"


# One job's part of the images, where several share the stage.
use rule irn_labels as irn_labels_shard with:
    input:
        unpack(reads("labels")),
    output:
        part=temp(directory("results/{run}/shards/labels/{part}-of-{total}")),
    log:
        "results/{run}/logs/shards/irn_labels_{part}-of-{total}.log",
    benchmark:
        "results/{run}/benchmarks/shards/irn_labels_{part}-of-{total}.tsv"


rule train_irn:
    input:
        config="results/{run}/config/irn.json",
        labels=ancient("results/{run}/irn/labels"),
        manifest="results/{run}/irn/labels.sha256",
        index=index_file("index.csv"),
    output:
        model="results/{run}/irn/model.safetensors",
    log:
        "results/{run}/logs/train_irn.log",
    benchmark:
        "results/{run}/benchmarks/train_irn.tsv"
    conda:
        ENVIRONMENT
    threads: training_threads
    resources:
        mem_mb=memory(32000),
        runtime=1440,
        gpu=training_gpus,
        root=root,
        program=TRAIN,
        compute=partial(training_compute, stage="irn"),
        weights=partial(weights, stage="irn"),
    params:
        code=code("wsss.irn.training"),
        weights=weights_fingerprint("irn"),
    shell:
        "{resources.program} train-irn --config {input.config:q} --labels {input.labels:q}"
        " --index {input.index:q} --root {resources.root:q}"
        " {resources.weights} --output {output.model:q}"
        " --work-dir results/{wildcards.run}/irn/work {resources.compute} 2>&1 | tee {log:q}"


rule pseudo_labels:
    input:
        unpack(reads("pseudo_labels")),
        unpack(shards("pseudo_labels")),
    output:
        labels=directory("results/{run}/pseudo_labels"),
        manifest="results/{run}/pseudo_labels.sha256",
        maps="results/{run}/walked.h5",
    log:
        "results/{run}/logs/pseudo_labels.log",
    benchmark:
        "results/{run}/benchmarks/pseudo_labels.tsv"
    conda:
        ENVIRONMENT
    threads: computing_threads
    resources:
        mem_mb=computing_memory(16000),
        runtime=1440,
        gpu=computing_gpus,
        root=root,
        compute=COMPUTE,
    params:
        code=code("wsss.irn.pseudo_labels"),
        results=result_options,
    shell:
        "wsss pseudo-labels --config {input.config:q} --cams {input.cams:q}"
        " --model {input.model:q} --index {input.index:q} --root {resources.root:q}"
        " {params.results} {resources.compute} 2>&1 | tee {log:q}"


# One job's part of the images, where several share the stage.
use rule pseudo_labels as pseudo_labels_shard with:
    input:
        unpack(reads("pseudo_labels")),
    output:
        part=temp(directory("results/{run}/shards/pseudo_labels/{part}-of-{total}")),
    log:
        "results/{run}/logs/shards/pseudo_labels_{part}-of-{total}.log",
    benchmark:
        "results/{run}/benchmarks/shards/pseudo_labels_{part}-of-{total}.tsv"
