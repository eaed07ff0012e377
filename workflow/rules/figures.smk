# The paper's figures for a few images: results/<run>/figures.sha256 makes those of a run,
# results/<run>/figures/versus-<other>.sha256 those that hold another run's beside its own.


localrules:
    all_figures,
    all_figures_versus,


# Image, CAM or DeepLab, ground truth (ACR, CVPR 2023, figures A5, A7, A8 and A9).
rule figures:
    input:
        unpack(inputs("figures")),
        unpack(figure_sources("run")),
    output:
        **outputs("figures"),
    log:
        log_of("figures_{what}"),
    benchmark:
        benchmark_of("figures_{what}")
    wildcard_constraints:
        what="cam|segmentation",
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        **resources("figures", mem_mb=4000, runtime=30),
    params:
        **params("figures", figure_options("run")),
    shell:
        COMMAND


# Image, another run's CAM or DeepLab, this run's, ground truth (figures A3 and A4).
use rule figures as figures_versus with:
    input:
        unpack(inputs("figures")),
        unpack(figure_sources("other", "run")),
    output:
        **written_folder("results/{run}/figures/versus-{other}/{what}"),
    log:
        log_of("figures_{what}_versus_{other}"),
    benchmark:
        benchmark_of("figures_{what}_versus_{other}")
    params:
        **params("figures", figure_options("other", "run")),


# What both updates feed the reconstructor, and what it makes of it (figure A6).
rule reconstructions:
    input:
        unpack(inputs("reconstructions")),
    output:
        **outputs("reconstructions"),
    log:
        log_of("reconstructions"),
    benchmark:
        benchmark_of("reconstructions")
    conda:
        ENVIRONMENT
    threads: whole_machine
    resources:
        **resources("reconstructions", mem_mb=8000, runtime=30),
    params:
        **params("reconstructions", seed_images),
    shell:
        COMMAND


rule all_figures:
    input:
        figure_manifests,
    output:
        "results/{run}/figures.sha256",
    log:
        log_of("all_figures"),
    benchmark:
        benchmark_of("all_figures")
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=memory(500),
        runtime=5,
        gpu=0,
    shell:
        "sha256sum {input:q} > {output:q} 2> {log:q}"


use rule all_figures as all_figures_versus with:
    input:
        figure_manifests,
    output:
        "results/{run}/figures/versus-{other}.sha256",
    log:
        log_of("all_figures_versus_{other}"),
    benchmark:
        benchmark_of("all_figures_versus_{other}")
