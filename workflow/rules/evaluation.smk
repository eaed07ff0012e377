# Scores, curves, panels and the table.


# Seconds of work, for which no cluster is asked.
localrules:
    miou,


rule score_cams:
    input:
        config="results/{run}/config/evaluation.json",
        maps="results/{run}/cams.h5",
        index=index_file("index.csv"),
        masks=index_file("masks.csv"),
    output:
        scores="results/{run}/evaluation/cam.csv",
        curve="results/{run}/evaluation/cam_curve.csv",
        plot="results/{run}/evaluation/cam_curve.png",
    log:
        "results/{run}/logs/score_cams.log",
    benchmark:
        "results/{run}/benchmarks/score_cams.tsv"
    conda:
        ENVIRONMENT
    threads: 2
    resources:
        mem_mb=memory(8000),
        runtime=240,
        gpu=0,
        root=root,
        compute=COMPUTE,
    params:
        code=code("wsss.evaluation.scoring"),
        stage="cam",
        split=setting("evaluation", "seed_split"),
        background=setting("evaluation", "cam_background"),
    shell:
        "wsss score-maps --config {input.config:q} --maps {input.maps:q}"
        " --index {input.index:q} --masks {input.masks:q} --root {resources.root:q}"
        " --output {output.scores:q} --curve {output.curve:q} --plot {output.plot:q}"
        " --run {wildcards.run} --stage {params.stage} --split {params.split:q}"
        " --background {params.background} {resources.compute} 2>&1 | tee {log:q}"


use rule score_cams as score_pseudo_labels with:
    input:
        config="results/{run}/config/evaluation.json",
        maps="results/{run}/walked.h5",
        index=index_file("index.csv"),
        masks=index_file("masks.csv"),
    output:
        scores="results/{run}/evaluation/pseudo_label.csv",
        curve="results/{run}/evaluation/pseudo_label_curve.csv",
        plot="results/{run}/evaluation/pseudo_label_curve.png",
    log:
        "results/{run}/logs/score_pseudo_labels.log",
    benchmark:
        "results/{run}/benchmarks/score_pseudo_labels.tsv"
    params:
        code=code("wsss.evaluation.scoring"),
        stage="pseudo_label",
        split=setting("evaluation", "seed_split"),
        background=setting("pseudo_labels", "background"),


rule score_segmentation:
    input:
        labels=ancient("results/{run}/predictions"),
        manifest="results/{run}/predictions.sha256",
        index=index_file("index.csv"),
        masks=index_file("masks.csv"),
    output:
        scores="results/{run}/evaluation/segmentation.csv",
    log:
        "results/{run}/logs/score_segmentation.log",
    benchmark:
        "results/{run}/benchmarks/score_segmentation.tsv"
    conda:
        ENVIRONMENT
    threads: 2
    resources:
        mem_mb=memory(4000),
        runtime=120,
        gpu=0,
        root=root,
    params:
        code=code("wsss.evaluation.scoring"),
        stage="segmentation",
        split=setting("prediction", "split"),
        kind=setting("segmentation", "labels"),
    shell:
        "wsss score-labels --labels {input.labels:q} --index {input.index:q}"
        " --masks {input.masks:q} --root {resources.root:q} --output {output.scores:q}"
        " --run {wildcards.run} --stage {params.stage} --split {params.split:q}"
        " --labels-kind {params.kind} 2>&1 | tee {log:q}"


use rule score_segmentation as score_segmentation_crf with:
    input:
        labels=ancient("results/{run}/predictions_crf"),
        manifest="results/{run}/predictions_crf.sha256",
        index=index_file("index.csv"),
        masks=index_file("masks.csv"),
    output:
        scores="results/{run}/evaluation/segmentation_crf.csv",
    log:
        "results/{run}/logs/score_segmentation_crf.log",
    benchmark:
        "results/{run}/benchmarks/score_segmentation_crf.tsv"
    params:
        code=code("wsss.evaluation.scoring"),
        stage="segmentation_crf",
        split=setting("prediction", "split"),
        kind=setting("segmentation", "labels"),


rule panels:
    input:
        unpack(shown),
        config="results/{run}/config/evaluation.json",
        index=index_file("index.csv"),
        masks=index_file("masks.csv"),
    output:
        panels=directory("results/{run}/panels"),
        manifest="results/{run}/panels.sha256",
    log:
        "results/{run}/logs/panels.log",
    benchmark:
        "results/{run}/benchmarks/panels.tsv"
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
        split=panel_split,
        sources=lambda wildcards, input: options(input, "cams", "pseudo_labels", "predictions"),
    shell:
        "wsss panels --config {input.config:q} --index {input.index:q} --masks {input.masks:q}"
        " --root {resources.root:q} {params.sources} --split {params.split:q}"
        " --output {output.panels:q} --manifest {output.manifest:q} 2>&1 | tee {log:q}"


rule miou:
    input:
        scores=scores,
        # Not read here: who asks for the table also wants to see the pictures.
        panels="results/{run}/panels.sha256",
    output:
        table="results/{run}/miou.csv",
    log:
        "results/{run}/logs/miou.log",
    benchmark:
        "results/{run}/benchmarks/miou.tsv"
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=memory(1000),
        runtime=10,
        gpu=0,
    params:
        code=code("wsss.evaluation.tables"),
    shell:
        "wsss collect {input.scores:q} --output {output.table:q} 2>&1 | tee {log:q}"
