# What the rules take from their stages' records in wsss/stages.py.
# Paths in a record are relative to results/<run>/; a folder comes with the manifest of its content,
# as Snakemake only knows a folder's time, which copying or touching changes.
from wsss.files.marks import adopt, check_replaceable
from wsss.stages import MASKS, PICTURES, SECTIONS, SHARDABLE, STAGES, is_folder, manifest_of

# What every stage's rule runs. Local settings are resources, which Snakemake does not remember.
COMMAND = (
    "{resources.program} {params.command} {params.files} {params.options} {resources.local}"
    " 2>&1 | tee {log:q}"
)


def log_of(name):
    """Log: of a stage, or of one of its jobs."""
    return f"results/{{run}}/logs/{name}.log"


def benchmark_of(name):
    """Benchmark: times of a stage, or of one of its jobs."""
    return f"results/{{run}}/benchmarks/{name}.tsv"


def read_folder(key, path):
    """Input: a folder and its manifest, which is what decides."""
    return {key: ancient(path), f"{key}_manifest": manifest_of(path)}


def written_folder(path, key="output", manifest="manifest"):
    """Output: a folder and its manifest."""
    return {key: directory(path), manifest: manifest_of(path)}


def inputs(name):
    """Input: settings and files of a stage, those apart whose place only its rule knows."""
    stage = STAGES[name]

    def files(wildcards):
        folder = f"results/{wildcards.run}"
        found = {"config": f"{folder}/config/{stage.settings}.json"} if stage.settings else {}
        for key, path in stage.inputs.items():
            if path in ("index.csv", "masks.csv"):
                found[key] = index_file(path)(wildcards)
            elif path == "cams.h5":
                found[key] = scored_cams(wildcards)
            elif is_folder(path):
                found |= read_folder(key, f"{folder}/{path.rstrip('/')}")
            elif path:
                found[key] = f"{folder}/{path}"
        # Not read: what decides is the content of the files that the lists name.
        if stage.pictures and "index" in found:
            found["picture_contents"] = index_file(PICTURES)(wildcards)
        if "masks" in found:
            found["mask_contents"] = index_file(MASKS)(wildcards)
        for key in unused_inputs(name, wildcards):
            del found[key]
        lenders = {
            "cam": anchor_model,
            "lpcam": own_classifier,
            "export": cam_inputs,
            "self_labels": teacher_model,
        }
        lent = lenders.get(name, chosen_scores(stage))
        return found | lent(wildcards)

    return files


def outputs(name, without=None):
    """Output: what a stage writes, apart from `without`."""
    stage, found = STAGES[name], {}
    for key, path in stage.outputs.items():
        place = f"results/{{run}}/{path.rstrip('/')}"
        if key != without and is_folder(path):
            found |= written_folder(place, key, stage.manifests[key])
        elif key != without:
            found[key] = place
    return found


def part(name):
    """Output: one job's part of the results, where several share the stage."""
    return temp(directory(f"results/{{run}}/shards/{name}/{{part}}-of-{{total}}"))


def words(**values):
    """Return options of a command as shell words; None and empty lists are left out."""
    found = []
    for name, value in values.items():
        if value is not None and value != []:
            several = isinstance(value, (list, tuple))
            found += [f"--{name.replace('_', '-')}", *(value if several else [value])]
    return shlex.join(map(str, found))


def file_options(stage, wildcards, input, output):
    """Param, derived from inputs and outputs: the files of a command, and which part of the
    results it makes; all of them, unless it makes one part or puts the parts together."""
    check_planned(stage, output)
    keys = ["config"] * bool(stage.settings) + list(stage.inputs)
    files = {key: input.get(key) for key in keys}
    if output.get("part"):
        return words(**files, output=output.part, shard=f"{wildcards.part}/{wildcards.total}")
    for key in [*stage.outputs, *stage.manifests.values()]:
        files[key] = output.get(key)
    if stage.work_dir:
        files["work_dir"] = f"results/{wildcards.run}/{stage.work_dir}"
    return words(**files, merge=input.get("parts"))


def params(name, options=""):
    """Return the params of a stage: what decides its results beside its inputs, and its command.

    `options` are further words of it, or a function of the wildcards that gives them.
    """
    stage = STAGES[name]
    found = {
        "code": code(name),
        "command": stage.command,
        "files": lambda wildcards, input, output: file_options(stage, wildcards, input, output),
        "options": options,
    }
    return found | ({"weights": weights_fingerprint(name)} if takes_weights(stage) else {})


def resources(name, mem_mb, runtime, all_threads=False):
    """Return the resources of a stage: memory in MB, minutes, GPUs, and the local words of its
    command. With `all_threads` each of the job's threads is a helper process."""
    stage = STAGES[name]
    on_gpu = computing_gpus if stage.shardable else training_gpus if stage.trains else gpus
    return {
        "mem_mb": computing_memory(mem_mb) if stage.shardable else memory(mem_mb),
        "runtime": runtime,
        "gpu": on_gpu if "device" in stage.machine else 0,
        "program": training_program if stage.trains else "wsss",
        "local": partial(local_options, stage, all_threads),
    }


def local_options(stage, all_threads, wildcards, threads):
    """Resource: the words of a command that are this machine's."""
    found = {"root": CONFIG.root_folder(wildcards.run)} if stage.has_root else {}
    for key in stage.machine:
        found[key] = (
            settled_threads(wildcards) if key == "threads" else getattr(CONFIG.compute, key)
        )
        if key == "micro_batch":
            found[key] = getattr(found[key], stage.name)
        elif isinstance(found[key], bool):
            found[key] = str(found[key]).lower()
    if stage.name == "index":
        # Only checked, and in no result: this is why it is not a param.
        found["sets"] = needed_sets(wildcards.run)
    if stage.name in ("index", "masks"):
        found["memory"] = MEMORY
    if all_threads:
        found["workers"] = threads
    files = weights_files(wildcards.run, stage.name) if takes_weights(stage) else {}
    return words(**found, **files)


def check_planned(stage, output):
    """Refuse in plans, too, folders that would surely be emptied, as they have no manifest."""
    # Without hooks `check_folders` is not called.
    no_hooks = workflow.is_main_process and workflow.execution_settings.no_hooks
    folders = [output.get(key) for key in (*stage.manifests, "part")]
    for folder in filter(None, folders):
        if no_hooks or not Path(manifest_of(folder)).exists():
            check_replaceable(folder)


def check_folders(dag):
    """Refuse to start where a folder that a job would write holds what wsss did not write.

    Snakemake empties such a folder itself, before the job's command could look at it.
    """
    for job in dag.needrun_jobs():
        folders = [str(path) for path in job.output if path.is_directory]
        if job.rule.name == "count_shards":
            parts = Path(f"results/{job.wildcards.run}/shards/{job.wildcards.stage}")
            folders += [str(path) for path in parts.glob("*") if path.name[0] != "."]
        for folder in folders:
            if folder.startswith("results/"):
                adopt(Path(folder), Path(manifest_of(folder)))
            check_replaceable(folder)
