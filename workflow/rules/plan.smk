# What this start will do, for `wsss status`: one file a run, which nothing depends on.
from wsss.errors import UserError
from wsss.monitor.plan import relative_job, write_plan


def planned_jobs(dag):
    """Return the jobs of each run by its folder, in an order in which they can run."""
    runs = {}
    for level in dag.toposorted():
        for job in sorted(level, key=lambda job: (job.rule.name, list(job.output))):
            if "run" in job.wildcards_dict:
                jobs = runs.setdefault(f"results/{job.wildcards.run}", [])
                # Generated data belong to no run: they are shown with those that read them.
                shared = [each for each in dag.dependencies[job] if not each.wildcards_dict]
                jobs += [each for each in [*shared, job] if each not in jobs]
    return runs


def planned_job(folder, job):
    """Return what the plan says of one job."""
    return relative_job(
        folder,
        job.rule.name,
        job.output,
        job.log,
        job.benchmark,
        must_run=workflow.dag.needrun(job),
    )


onstart:
    check_device()
    if workflow.is_main_process:
        check_folders(workflow.dag)
        keep_threads(workflow.dag)
        for folder, jobs in planned_jobs(workflow.dag).items():
            try:
                write_plan(
                    Path(folder),
                    [planned_job(folder, job) for job in jobs],
                    whole=any(job.rule.name in ("collect", "done") for job in jobs),
                )
            except UserError as error:
                print(f"`wsss status` will not know of this start: {error}", file=sys.stderr)
