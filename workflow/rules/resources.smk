# What the jobs ask for: threads, memory, GPUs, weight files; and how they take the signals that
# end them.
import signal
import threading

from wsss.errors import UserError
from wsss.project.ablations import INFIX
from wsss.project.threads import BEFORE_RECORDS, record_threads, threads_of
from wsss.runtime.cores import usable_cores

# A scheduler announces a job's end to all of its processes at once, with SIGTERM or SIGUSR1. Only
# the stage may act on it, which then saves what it has: what stands around it, the shell that waits
# for it, the `tee` that logs its last words and Snakemake itself, stays until the stage is gone.
shell.prefix(
    "trap : TERM USR1; tee() {{ trap '' INT TERM USR1; exec tee \"$@\"; }}; set -euo pipefail; "
)
if threading.current_thread() is threading.main_thread():
    signal.signal(signal.SIGUSR1, lambda number, frame: None)


def submits():
    """Say whether this Snakemake hands jobs to a cluster, rather than running them."""
    return workflow.non_local_exec and not workflow.remote_exec


def computes_elsewhere():
    """Say whether jobs run on other machines than that which plans them, or this is such a job."""
    return workflow.non_local_exec or workflow.remote_exec


def run_folder(run):
    """Return the folder of a run; of one row of its ablations, the run's own."""
    return Path("results", run.partition(INFIX)[0])


def settled_threads(wildcards):
    """Return the CPU threads of a run's stages: `auto` is what the run began with. Where jobs are
    submitted, nobody can tell what the nodes have."""
    here = BEFORE_RECORDS if computes_elsewhere() else max(1, usable_cores() // CONFIG.compute.gpus)
    return threads_of(run_folder(wildcards.run), CONFIG.compute.threads, here=here)


def keep_threads(dag):
    """Record the CPU threads of the runs that this start works on."""
    for job in dag.needrun_jobs():
        if "run" in job.wildcards_dict:
            record_threads(run_folder(job.wildcards.run), settled_threads(job.wildcards))


def training_program(wildcards):
    """Return what starts a training: `wsss`, or that under torchrun."""
    return CONFIG.compute.training_program(settled_threads(wildcards))


def whole_machine(wildcards, processes=1):
    """Threads: those that a job's processes use. On a GPU here it takes the whole machine, so that
    no two of them run side by side on it."""
    if CONFIG.compute.wants_gpu() and not computes_elsewhere():
        return workflow.cores
    return processes * (settled_threads(wildcards) + CONFIG.compute.workers)


def all_cores(wildcards):
    """Threads: of a job that shares its work among as many processes as it is given cores; on a
    cluster as many as other jobs ask for."""
    return whole_machine(wildcards) if computes_elsewhere() else workflow.cores


def training_threads(wildcards):
    """Threads: the same for a training, of as many processes as it has GPUs."""
    return whole_machine(wildcards, CONFIG.compute.gpus)


def memory(mb):
    """Resource: memory in MB; attempts after a failure, which may have been for want of it, ask
    for twice as much."""
    return lambda wildcards, attempt: mb * min(attempt, 2)


def check_device():
    """Refuse to submit jobs without knowing what their machines have."""
    if submits() and CONFIG.compute.device == "auto":
        raise UserError(
            "device is 'auto', and where jobs are submitted nobody can tell what the nodes have",
            where="compute.device",
            expected="cuda or cpu",
            fix="in config.local.yaml, set  compute: {device: cuda}",
        )


def gpus(wildcards):
    """Resource: number of GPUs."""
    return int(CONFIG.compute.wants_gpu())


def training_gpus(wildcards):
    """Resource: number of GPUs of a training."""
    return gpus(wildcards) * CONFIG.compute.gpus


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


def helper_threads(wildcards):
    """Threads: one for each helper process of a stage that shares its images among them."""
    return max(1, CONFIG.compute.workers)


def takes_weights(stage):
    """Say whether a stage may take weight files."""
    return stage.trains or stage.name == "export"


def weights_files(run, stage):
    """Return what a stage starts from beside its inputs, by the options that take them: weight
    files, and a folder of maps."""
    if STAGES[stage].trains:
        return CONFIG.weights_files(run, stage)
    # The maps of a method that trains nothing come from its weights, or its folder, as they are.
    is_source = stage == "export" and cam_method(CONFIG.run(run)).task is None
    return CONFIG.weights_files(run, "cam") | CONFIG.seeds_root(run) if is_source else {}


def weights_fingerprint(stage):
    """Param: what is in those files, wherever they lie, and in packages of weights."""

    def fingerprint(wildcards):
        files = weights_files(wildcards.run, stage)
        if files:
            CONFIG.check_weights(wildcards.run)
        found = package_fingerprints(CONFIG.run(wildcards.run).stages[stage])
        for option, path in files.items():
            of_maps = option == "seeds-root"
            found[option] = maps_fingerprint(path) if of_maps else file_fingerprint(path)
        return found

    return fingerprint
