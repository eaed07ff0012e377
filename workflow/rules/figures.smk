# The paper's figures for a few images: results/<run>/figures.sha256 makes those of a run,
# results/<run>/figures/versus-<other>.sha256 those that hold another run's beside its own.
def predicted(run):
    """Return the folder of a run's predictions, with CRF where it has them."""
    return f"results/{run}/predictions{'_crf' if has_crf(CONFIG.run(run)) else ''}"


def predictions(*names):
    """Input: the predictions of the runs that these wildcards name."""
    return lambda wildcards: {
        key: value
        for name in names
        for folder in [predicted(wildcards[name])]
        for key, value in {name: ancient(folder), f"{name}_sha": f"{folder}.sha256"}.items()
    }


def columns(title, *names):
    """Param, derived from inputs: `title: run=path` of the inputs named after these wildcards."""
    return lambda wildcards, input: [
        f"{title}: {wildcards[name]}={input.get(name)}" for name in names
    ]


def figure_manifests(wildcards):
    """Input: the figures of a run, or of a run and another, as far as both go."""
    other = wildcards.get("other", wildcards.run)
    stages = set(scored_stages(wildcards.run)) & set(scored_stages(other))
    kinds = [kind for kind in ("cam", "segmentation") if kind in stages]
    folder = f"results/{wildcards.run}/figures"
    if "other" in wildcards.keys():
        folder += f"/versus-{other}"
    elif "cam" in kinds and wildcards.run in CONFIG.runs and has_reconstructor(CONFIG.run(other)):
        kinds.append("reconstructions")
    if not kinds:
        raise ValueError(f"{wildcards.run} and {other} have no results that can be compared")
    return [f"{folder}/{kind}.sha256" for kind in kinds]


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
        mem_mb=4000,
        runtime=30,
        gpu=0,
        root=root,
    params:
        code=code("wsss.evaluation.panels"),
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
        code=code("wsss.evaluation.panels"),
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
        code=code("wsss.evaluation.panels"),
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
        code=code("wsss.evaluation.panels"),
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
    threads: WHOLE_MACHINE
    resources:
        mem_mb=8000,
        runtime=30,
        gpu=GPUS,
        root=root,
        compute=COMPUTE,
    params:
        code=code("wsss.cam.figures"),
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
        mem_mb=500,
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
