from snakemake.utils import min_version

min_version("9.8")


include: "workflow/rules/common.smk"
include: "workflow/rules/data.smk"
include: "workflow/rules/shards.smk"
include: "workflow/rules/cam.smk"
include: "workflow/rules/irn.smk"
include: "workflow/rules/segmentation.smk"
include: "workflow/rules/results.smk"
include: "workflow/rules/comparisons.smk"
include: "workflow/rules/evaluation.smk"
include: "workflow/rules/ablation.smk"
include: "workflow/rules/methods.smk"
include: "workflow/rules/figures.smk"
include: "workflow/rules/plan.smk"


wildcard_constraints:
    run=ANY_RUN,
    other=RUN_NAME,


rule all:
    default_target: True
    input:
        "results/demo/done",


# What a new user wants to see beside `demo`: the plain-CAM baseline and the upper bound.
rule demo_compare:
    input:
        expand("results/{run}/done", run=["demo", "demo-cam", "demo-gt"]),
