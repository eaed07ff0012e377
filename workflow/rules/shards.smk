# Stages whose images several jobs share, as `shards:` says. How many is noted by a checkpoint, which
# runs when such a stage must, and only then: so another number in the configuration makes nothing
# run again that has results, and a stage that was interrupted goes on with the jobs that it had.
# Where there are no results, not even older ones, another number counts at once.
from wsss.files import content_hash

# Stage: the module that it runs, what it reads beside its settings and the index, what it makes.
SHARED = {
    "export": ("wsss.cam.export", {"model": "cam/model.safetensors"}, "cams.h5"),
    "labels": ("wsss.irn.labels", {"cams": "cams.h5"}, "irn/labels.sha256"),
    "pseudo_labels": (
        "wsss.irn.pseudo_labels",
        {"cams": "cams.h5", "model": "irn/model.safetensors"},
        "pseudo_labels.sha256",
    ),
    "prediction": (
        "wsss.segmentation.prediction",
        {"model": "segmentation/model.safetensors"},
        "predictions.sha256",
    ),
}


def reads(stage=None):
    """Input: the files that decide the results of a stage; without one, of the wildcard's."""

    def files(wildcards):
        name, folder = stage or wildcards.stage, f"results/{wildcards.run}"
        return {
            "config": f"{folder}/config/{name}.json",
            "index": index_file("index.csv")(wildcards),
            **{key: f"{folder}/{path}" for key, path in SHARED[name][1].items()},
            **(attention_model(wildcards) if name == "export" else {}),
        }

    return files


def shards(stage):
    """Input: how many jobs share a stage, and their parts of its results where there are several."""

    def files(wildcards):
        counted = checkpoints.count_shards.get(run=wildcards.run, stage=stage).output.number
        total = json.loads(Path(counted).read_text())["shards"]
        folder = f"results/{wildcards.run}/shards/{stage}"
        parts = [f"{folder}/{i}-of-{total}" for i in range(1, total + 1)]
        return {"number": counted, **({"parts": parts} if total > 1 else {})}

    return files


def asked(wildcards):
    """Param: changes where `shards:` has another number for a stage that has no results yet."""
    folder, stage = Path(f"results/{wildcards.run}"), wildcards.stage
    number, note = getattr(CONFIG.shards, stage), folder / f"shards/{stage}.json"
    if not note.exists():
        return f"{number} jobs"
    noted = json.loads(note.read_text())
    if noted["shards"] == number or (folder / SHARED[stage][2]).exists():
        return noted["asked"]
    return content_hash([number, noted])


def result_options(wildcards, input, output):
    """Param, derived from inputs and outputs: where results go, and which part of them a job
    makes; all of them, unless it makes one part or puts the parts together."""
    if output.get("part"):
        return f"--output {output.part} --shard {wildcards.part}/{wildcards.total}"
    names = {"cams": "output", "labels": "output", "labels_crf": "output-crf"}
    words = [f"--{names.get(key, key).replace('_', '-')} {path}" for key, path in output.items()]
    return " ".join([*words, *(["--merge", *input.parts] if input.get("parts") else [])])


def computing_threads(wildcards, input):
    """Threads: the whole machine, unless a job only puts parts together."""
    return 1 if input.get("parts") else whole_machine(wildcards)


def computing_memory(mb):
    """Resource: memory in MB, unless a job only puts parts together."""
    return lambda wildcards, input, attempt: memory(min(mb, 4000) if input.get("parts") else mb)(
        wildcards, attempt
    )


def computing_gpus(wildcards, input):
    """Resource: number of GPUs, unless a job only puts parts together."""
    return 0 if input.get("parts") else gpus(wildcards)


checkpoint count_shards:
    input:
        unpack(reads()),
    output:
        number="results/{run}/shards/{stage}.json",
    log:
        "results/{run}/logs/shards/{stage}.log",
    wildcard_constraints:
        stage="|".join(SHARED),
    localrule: True
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=100,
        runtime=5,
        gpu=0,
        shards=lambda wildcards: getattr(CONFIG.shards, wildcards.stage),
    params:
        code=lambda wildcards: closure_hash(SHARED[wildcards.stage][0]),
        asked=asked,
    # Parts that an earlier start has left are of other settings, or of another number.
    shell:
        "rm -rf results/{wildcards.run}/shards/{wildcards.stage} 2> {log:q} &&"
        ' printf \'{{"shards": %d, "asked": "%s"}}\\n\' {resources.shards} {params.asked:q}'
        " > {output.number:q}"
