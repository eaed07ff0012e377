# The paper's figures for a few images: results/<run>/figures.sha256 makes those of a run,
# results/<run>/figures/versus-<other>.sha256 those that hold another run's beside its own.


localrules:
    figures,
    figures_versus,


# Image, CAM, ground truth (ACR, CVPR 2023, figures A5 and A8).
rule figure_cam:
    input:
        config="results/{run}/config/evaluation.json",
        run="results/{run}/cams.h5",
        index=index_file("index.csv"),
        masks=index_file("masks.csv"),
    output:
        figures=directory("results/{run}/figures/cam"),
        manifest="results/{run}/figures/cam.sha256",
    log:
        "results/{run}/logs/figure_cam.log",
    benchmark:
        "results/{run}/benchmarks/figure_cam.tsv"
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=memory(4000),
        runtime=30,
        gpu=0,
        root=root,
    params:
        code=code("wsss.figures.panels"),
        kind="cams",
        columns=columns("CAM", "run"),
        split=setting("evaluation", "seed_split"),
    shell:
        "wsss figures columns --config {input.config:q} --index {input.index:q}"
        " --masks {input.masks:q} --root {resources.root:q}"
        " --{params.kind} {params.columns:q} --split {params.split:q}"
        " --output {output.figures:q} --manifest {output.manifest:q} 2>&1 | tee {log:q}"


# Image, DeepLab, ground truth (figures A7 and A9).
use rule figure_cam as figure_segmentation with:
    input:
        unpack(predictions("run")),
        config="results/{run}/config/evaluation.json",
        index=index_file("index.csv"),
        masks=index_file("masks.csv"),
    output:
        figures=directory("results/{run}/figures/segmentation"),
        manifest="results/{run}/figures/segmentation.sha256",
    log:
        "results/{run}/logs/figure_segmentation.log",
    benchmark:
        "results/{run}/benchmarks/figure_segmentation.tsv"
    params:
        code=code("wsss.figures.panels"),
        kind="labels",
        columns=columns("DeepLab", "run"),
        split=setting("prediction", "split"),


# Image, another run's CAM, this run's, ground truth (figure A3).
use rule figure_cam as figure_cam_versus with:
    input:
        config="results/{run}/config/evaluation.json",
        other="results/{other}/cams.h5",
        run="results/{run}/cams.h5",
        index=index_file("index.csv"),
        masks=index_file("masks.csv"),
    output:
        figures=directory("results/{run}/figures/versus-{other}/cam"),
        manifest="results/{run}/figures/versus-{other}/cam.sha256",
    log:
        "results/{run}/logs/figure_cam_versus_{other}.log",
    benchmark:
        "results/{run}/benchmarks/figure_cam_versus_{other}.tsv"
    params:
        code=code("wsss.figures.panels"),
        kind="cams",
        columns=columns("CAM", "other", "run"),
        split=setting("evaluation", "seed_split"),


# The same with segmentations (figure A4).
use rule figure_cam as figure_segmentation_versus with:
    input:
        unpack(predictions("other", "run")),
        config="results/{run}/config/evaluation.json",
        index=index_file("index.csv"),
        masks=index_file("masks.csv"),
    output:
        figures=directory("results/{run}/figures/versus-{other}/segmentation"),
        manifest="results/{run}/figures/versus-{other}/segmentation.sha256",
    log:
        "results/{run}/logs/figure_segmentation_versus_{other}.log",
    benchmark:
        "results/{run}/benchmarks/figure_segmentation_versus_{other}.tsv"
    params:
        code=code("wsss.figures.panels"),
        kind="labels",
        columns=columns("DeepLab", "other", "run"),
        split=setting("prediction", "split"),


# What both updates feed the reconstructor, and what it makes of it (figure A6).
rule figure_reconstructions:
    input:
        config="results/{run}/config/evaluation.json",
        model="results/{run}/cam/model.safetensors",
        reconstructor="results/{run}/cam/reconstructor.safetensors",
        index=index_file("index.csv"),
    output:
        figures=directory("results/{run}/figures/reconstructions"),
        manifest="results/{run}/figures/reconstructions.sha256",
    log:
        "results/{run}/logs/figure_reconstructions.log",
    benchmark:
        "results/{run}/benchmarks/figure_reconstructions.tsv"
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
        code=code("wsss.figures.reconstruction"),
        split=setting("evaluation", "seed_split"),
    shell:
        "wsss figures reconstructions --config {input.config:q} --model {input.model:q}"
        " --reconstructor {input.reconstructor:q} --index {input.index:q}"
        " --root {resources.root:q} --split {params.split:q} --output {output.figures:q}"
        " --manifest {output.manifest:q} {resources.compute} 2>&1 | tee {log:q}"


rule figures:
    input:
        figure_manifests,
    output:
        "results/{run}/figures.sha256",
    log:
        "results/{run}/logs/figures.log",
    benchmark:
        "results/{run}/benchmarks/figures.tsv"
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=memory(500),
        runtime=5,
        gpu=0,
    shell:
        "sha256sum {input:q} > {output:q} 2> {log:q}"


use rule figures as figures_versus with:
    input:
        figure_manifests,
    output:
        "results/{run}/figures/versus-{other}.sha256",
    log:
        "results/{run}/logs/figures_versus_{other}.log",
    benchmark:
        "results/{run}/benchmarks/figures_versus_{other}.tsv"
