"""The plan of a run: which stages it has and what each writes, for `wsss status` to read.

Snakemake knows this only while it runs, and only where it runs; written down at its start, any
machine that sees the results can tell how far they are.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from wsss.errors import UserError
from wsss.files import is_below, is_too_long, read_json, write_json
from wsss.monitor.beats import is_time

PLAN_FILE = "plan.json"
PLAN_VERSION = 1


@dataclass(frozen=True)
class PlannedJob:
    """One call of a stage.

    Attributes:
        rule: Name of its rule.
        outputs: What it writes, relative to the run's folder.
        log: Its log, relative to the run's folder; None: it has none.
        benchmark: Its times, relative to the run's folder; None: they are not taken.
        must_run: Whether it had to run when the plan was made.
    """

    rule: str
    outputs: tuple[str, ...]
    log: str | None = None
    benchmark: str | None = None
    must_run: bool = True


@dataclass(frozen=True)
class Plan:
    """The stages of a run in an order in which they can run, and when that was written down."""

    jobs: tuple[PlannedJob, ...]
    written: float


def relative_job(
    run_folder: str,
    rule: str,
    outputs: Iterable[str],
    logs: Iterable[str],
    benchmark: str | None,
    *,
    must_run: bool,
) -> PlannedJob:
    """Return a job with its paths, given from the project's folder, relative to the run's."""

    def relative(path: str) -> str:
        return Path(os.path.relpath(path, run_folder)).as_posix()

    log = next(iter(logs), None)
    return PlannedJob(
        rule=rule,
        outputs=tuple(map(relative, outputs)),
        log=None if log is None else relative(log),
        benchmark=None if benchmark is None else relative(benchmark),
        must_run=must_run,
    )


def write_plan(run_folder: Path, jobs: Iterable[PlannedJob], *, whole: bool) -> None:
    """Write the plan of a run.

    Args:
        run_folder: `results/<run>`.
        jobs: Its stages, in an order in which they can run.
        whole: Whether these are all stages of the run. If not, those of an earlier plan stay,
            unless they write what these do.
    """
    new = list(jobs)
    if not whole:
        written = {output for job in new for output in job.outputs}
        earlier = read_plan(run_folder)
        kept = [job for job in earlier.jobs if written.isdisjoint(job.outputs)] if earlier else []
        new += kept
    values = {"version": PLAN_VERSION, "written": time.time(), "jobs": [asdict(job) for job in new]}
    write_json(run_folder / PLAN_FILE, values)


def read_plan(run_folder: Path) -> Plan | None:
    """Return the plan of a run; None: there is none that this version can read."""
    try:
        values: Any = read_json(run_folder / PLAN_FILE)
    except UserError:
        return None
    if not isinstance(values, dict) or values.get("version") != PLAN_VERSION:
        return None
    jobs, written = values.get("jobs"), values.get("written")
    if not isinstance(jobs, list) or written is None or not is_time(written):
        return None
    found = [_job(job) for job in jobs]
    sound = tuple(job for job in found if job is not None and _stays(job))
    return Plan(jobs=sound, written=float(written)) if len(sound) == len(found) else None


def _job(values: Any) -> PlannedJob | None:
    """Return a job as it was written; None: it is something else."""
    if not isinstance(values, dict):
        return None
    rule, outputs = values.get("rule"), values.get("outputs")
    log, benchmark = values.get("log"), values.get("benchmark")
    must_run = values.get("must_run", True)
    if not (isinstance(rule, str) and isinstance(outputs, list) and isinstance(must_run, bool)):
        return None
    texts = [*outputs, *(path for path in (log, benchmark) if path is not None)]
    if not all(isinstance(path, str) for path in texts):
        return None
    return PlannedJob(rule, tuple(outputs), log, benchmark, must_run)


def _stays(job: PlannedJob) -> bool:
    """Say whether what is read of a job, and shown, is a log or a table of times of this project.

    Generated data belong to all runs, and their log lies above a run's folder.
    """
    for path, folder in ((job.log, "logs"), (job.benchmark, "benchmarks")):
        if path is not None:
            inside = re.sub(r"^(\.\./){1,3}(?=" + folder + "/)", "", path)
            if not is_below(inside):
                return False
    # Of outputs only the time is looked at; generated data can lie anywhere near.
    return not any(
        Path(output).is_absolute() or "\0" in output or is_too_long(output)
        for output in job.outputs
    )
