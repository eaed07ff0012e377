# The segmentation model, trained on pseudo-labels, and its predictions; or on labels that another
# run's model predicts of the same images.


rule self_labels:
    input:
        unpack(inputs("self_labels")),
        unpack(shards("self_labels")),
    output:
        **outputs("self_labels"),
    log:
        log_of("self_labels"),
    benchmark:
        benchmark_of("self_labels")
    wildcard_constraints:
        run=runs_pattern(lambda run: run.labels_run is not None, rows=True),
    conda:
        ENVIRONMENT
    threads: computing_threads
    resources:
        **resources("self_labels", mem_mb=16000, runtime=720),
    params:
        **params("self_labels"),
    shell:
        COMMAND


# One job's part of the images, where several share the stage.
use rule self_labels as self_labels_shard with:
    input:
        unpack(inputs("self_labels")),
    output:
        part=part("self_labels"),
    log:
        log_of("shards/self_labels_{part}-of-{total}"),
    benchmark:
        benchmark_of("shards/self_labels_{part}-of-{total}")


rule segmentation:
    input:
        unpack(inputs("segmentation")),
        unpack(training_labels),
    output:
        **outputs("segmentation"),
    log:
        log_of("segmentation"),
    benchmark:
        benchmark_of("segmentation")
    conda:
        ENVIRONMENT
    threads: training_threads
    resources:
        **resources("segmentation", mem_mb=32000, runtime=2880),
    params:
        **params("segmentation"),
    shell:
        COMMAND


rule prediction:
    input:
        unpack(inputs("prediction")),
        unpack(shards("prediction")),
    output:
        **outputs("prediction", without="output_crf"),
    log:
        log_of("prediction"),
    benchmark:
        benchmark_of("prediction")
    wildcard_constraints:
        run=runs_pattern(lambda run: not has_crf(run), rows=True),
    conda:
        ENVIRONMENT
    threads: computing_threads
    resources:
        **resources("prediction", mem_mb=16000, runtime=720),
    params:
        **params("prediction"),
    shell:
        COMMAND


use rule prediction as prediction_crf with:
    output:
        **outputs("prediction"),
    wildcard_constraints:
        run=runs_pattern(has_crf, rows=True),


# One job's part of the images, where several share the stage.
use rule prediction as prediction_shard with:
    input:
        unpack(inputs("prediction")),
    output:
        part=part("prediction"),
    log:
        log_of("shards/prediction_{part}-of-{total}"),
    benchmark:
        benchmark_of("shards/prediction_{part}-of-{total}")
    wildcard_constraints:
        run=ANY_RUN,


# A few images of the seeds' split, for the panels.
use rule prediction as prediction_sample with:
    input:
        unpack(inputs("prediction")),
    output:
        **written_folder("results/{run}/sample"),
    log:
        log_of("prediction_sample"),
    benchmark:
        benchmark_of("prediction_sample")
    wildcard_constraints:
        run=ANY_RUN,
    resources:
        **resources("prediction", mem_mb=8000, runtime=30),
    params:
        **params("prediction", seed_images),
