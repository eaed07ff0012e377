# IRN: confident labels, affinities, random walk. Folders are `ancient` and come with a manifest
# of their content: Snakemake only knows a folder's time, which copying or touching changes.


rule irn_labels:
    input:
        config="results/{run}/config/labels.json",
        cams="results/{run}/cams.h5",
        index=index_file("index.csv"),
    output:
        labels=directory("results/{run}/irn/labels"),
        manifest="results/{run}/irn/labels.sha256",
    log:
        "results/{run}/logs/irn_labels.log",
    benchmark:
        "results/{run}/benchmarks/irn_labels.tsv"
    conda:
        ENVIRONMENT
    threads: whole_machine
    resources:
        mem_mb=memory(8000),
        runtime=720,
        gpu=0,
        root=root,
        compute=COMPUTE,
    params:
        code=code("wsss.irn.labels"),
    shell:
        "wsss irn-labels --config {input.config:q} --cams {input.cams:q}"
        " --index {input.index:q} --root {resources.root:q} --output {output.labels:q}"
        " --manifest {output.manifest:q} {resources.compute} 2>&1 | tee {log:q}"


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
        config="results/{run}/config/pseudo_labels.json",
        cams="results/{run}/cams.h5",
        model="results/{run}/irn/model.safetensors",
        index=index_file("index.csv"),
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
    threads: whole_machine
    resources:
        mem_mb=memory(16000),
        runtime=1440,
        gpu=gpus,
        root=root,
        compute=COMPUTE,
    params:
        code=code("wsss.irn.pseudo_labels"),
    shell:
        "wsss pseudo-labels --config {input.config:q} --cams {input.cams:q}"
        " --model {input.model:q} --index {input.index:q} --root {resources.root:q}"
        " --output {output.labels:q} --manifest {output.manifest:q} --maps {output.maps:q}"
        " {resources.compute} 2>&1 | tee {log:q}"
