# Stages whose images several jobs share, as `shards:` says. How many is noted by a checkpoint, which
# runs when such a stage must, and only then: so another number in the configuration makes nothing
# run again that has results, and a stage that was interrupted goes on with the jobs that it had.
# Where there are no results, not even older ones, another number counts at once.
from wsss.files import content_hash


def result(wildcards):
    """Return what tells that a stage has results."""
    path = next(iter(STAGES[wildcards.stage].outputs.values()))
    return Path(f"results/{wildcards.run}") / (manifest_of(path) if is_folder(path) else path)


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
    if noted["shards"] == number or result(wildcards).exists():
        return noted["asked"]
    return content_hash([number, noted])


checkpoint count_shards:
    input:
        unpack(lambda wildcards: inputs(wildcards.stage)(wildcards)),
    output:
        number="results/{run}/shards/{stage}.json",
    log:
        log_of("shards/{stage}"),
    wildcard_constraints:
        stage="|".join(SHARDABLE),
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
        code=lambda wildcards: code(wildcards.stage)(wildcards),
        asked=asked,
    # Parts that an earlier start has left are of other settings, or of another number.
    shell:
        "rm -rf results/{wildcards.run}/shards/{wildcards.stage} 2> {log:q} &&"
        ' printf \'{{"shards": %d, "asked": "%s"}}\\n\' {resources.shards} {params.asked:q}'
        " > {output.number:q}"
