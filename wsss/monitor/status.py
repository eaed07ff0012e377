"""How far a run is, stage by stage, from files alone: its plan, heartbeats, logs and times.

Nothing is asked of the machines that the stages run on, so this works wherever the results can be
read, such as a cluster's login node.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from wsss.errors import UserError
from wsss.files import read_json
from wsss.monitor.beats import number, read_beat
from wsss.monitor.plan import PlannedJob, read_plan
from wsss.runtime.heartbeat import (
    ALIVE_INTERVAL_S,
    host_identity,
    host_name,
    process_identity,
)
from wsss.runtime.times import clock, read_seconds

State = Literal["done", "running", "stalled?", "waiting", "stopped", "failed"]

# A process shows itself several times a minute; network file systems show it late.
SILENT_S = 8 * ALIVE_INTERVAL_S
# A process without progress for so long, and for so many times its usual, may hang.
IDLE_S = 600.0
IDLE_ITEMS = 20
LOG_LINES = 8
_LOG_TAIL_BYTES = 16384
_PARTS = "shards"
# What the rule `done` writes last.
_DONE = "done"
# More jobs than any stage is shared by; each is looked for.
_MOST_PARTS = 10_000


@dataclass(frozen=True)
class JobStatus:
    """State of one call of a stage.

    Attributes:
        rule: Its rule.
        output: Its first output, relative to the run's folder.
        state: Its state; "stalled?" may only be slow, or on a machine whose files come late.
        note: What there is to say beside it, one line.
        seconds: How long it took, where it is done and that is known.
        log: Its log, relative to the run's folder.
        log_tail: The log's last lines, where it failed or stalled.
        progress: The heartbeat's numbers, where it runs.
    """

    rule: str
    output: str
    state: State
    note: str = ""
    seconds: float | None = None
    log: str | None = None
    log_tail: tuple[str, ...] = ()
    progress: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class RunStatus:
    """State of a run.

    Attributes:
        folder: The run's folder.
        planned: When its plan was written, seconds since 1970; None: it has none.
        jobs: Its stages, in an order in which they can run.
        lock: A remark on Snakemake's lock, if there is one.
    """

    folder: Path
    planned: float | None
    jobs: tuple[JobStatus, ...]
    lock: str | None = None


def run_status(folder: Path, *, now: float | None = None) -> RunStatus:
    """Return the state of the run in `folder`.

    Raises:
        UserError: There is no such folder, or nothing of a run in it.
    """
    if not folder.is_dir():
        raise UserError(
            "there is no such run yet",
            where=folder,
            expected="the folder of a run that was started: results/<run>",
        )
    at = time.time() if now is None else now
    plan = read_plan(folder)
    planned = list(plan.jobs) if plan else _found_jobs(folder)
    if not planned:
        raise UserError(
            "nothing of a run is here",
            where=folder,
            expected="plan.json, which Snakemake's start leaves, or a stage's outputs",
        )
    known = {output for job in planned for output in job.outputs}
    planned += [job for job in _parts(folder) if known.isdisjoint(job.outputs)]
    written = plan.written if plan else None
    jobs = tuple(_job_status(folder, job, written, at) for job in planned)
    lock = _lock(folder, jobs)
    if lock is None and written is not None and _is_done_since(folder, written):
        # A stage that gave the same bytes again: what was planned after it needed no new start.
        jobs = tuple(_job_status(folder, job, None, at) for job in planned)
    return RunStatus(folder=folder, planned=written, jobs=jobs, lock=lock)


def _changed(path: Path) -> float:
    """Return when a file was changed, seconds since 1970; 0: it is not there, or is just going."""
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _is_done_since(folder: Path, written: float) -> bool:
    """Say whether all that a run is for was finished after its plan was written."""
    finished = _changed(folder / _DONE)
    return finished > 0 and finished >= written


def _found_jobs(folder: Path) -> list[PlannedJob]:
    """Return the stages that have left a heartbeat, for runs without Snakemake."""
    found = []
    for path in sorted(folder.rglob(".*.heartbeat.json"), key=_changed):
        output = path.with_name(path.name.removeprefix(".").removesuffix(".heartbeat.json"))
        if output.relative_to(folder).parts[0] == _PARTS:
            continue
        name = _stage(read_beat(output)) or output.name
        found.append(PlannedJob(name, (output.relative_to(folder).as_posix(),), must_run=False))
    return found


def _parts(folder: Path) -> list[PlannedJob]:
    """Return the jobs that share a stage, while they do: a plan is older than their number."""
    found = []
    for note in sorted((folder / _PARTS).glob("*.json")):
        try:
            total = read_json(note)["shards"]
        except (UserError, KeyError, TypeError):
            continue
        if not isinstance(total, int) or total > _MOST_PARTS:
            continue
        outputs = [f"{_PARTS}/{note.stem}/{part}-of-{total}" for part in range(1, total + 1)]
        beats = [read_beat(folder / output) for output in outputs]
        if total < 2 or not any(beats) or all(beat.get("state") == "done" for beat in beats):
            continue
        for output in outputs:
            log = f"logs/{_PARTS}/{note.stem}_{Path(output).name}.log"
            found.append(PlannedJob(f"{note.stem} parts", (output,), log, must_run=False))
    return found


def _stage(beat: Mapping[str, Any]) -> str:
    """Return the name of the stage whose heartbeat this is; empty: it does not say."""
    return str(beat.get("command", "")).replace("-", "_")


def _job_status(folder: Path, job: PlannedJob, written: float | None, now: float) -> JobStatus:
    outputs = [folder / output for output in job.outputs]
    beats = [read_beat(output) for output in outputs]
    beat = max(beats, key=lambda values: number(values, "time"), default={})
    made = min(map(_changed, outputs), default=0.0)
    state, note = _state(job, beat, made, written, now)
    return JobStatus(
        rule=job.rule,
        output=job.outputs[0] if job.outputs else "",
        state=state,
        note=note,
        seconds=_seconds(folder, job, beat) if state == "done" else None,
        log=job.log,
        log_tail=_log_tail(folder, job) if state in ("failed", "stalled?") else (),
        progress=beat if state in ("running", "stalled?") else None,
    )


def _state(
    job: PlannedJob, beat: Mapping[str, Any], made: float, written: float | None, now: float
) -> tuple[State, str]:
    """Return state and remark.

    Args:
        job: The job.
        beat: Its heartbeat; empty: it has none.
        made: When its oldest output was written; 0: one is missing.
        written: When the plan was written.
        now: The time.
    """
    state = beat.get("state")
    last = number(beat, "time")
    if state == "running":
        running = _running(beat, now)
        # Outputs are renamed into place at the very end: whole, even if the process is gone.
        if running[0] != "failed" or made < number(beat, "started", now):
            return running
    if made and not (state in ("failed", "stopped") and last > made):
        if job.must_run and written is not None and max(made, last) < written:
            return "waiting", "to be made again; what is there is of an earlier start"
        return "done", ""
    if state == "done" and job.outputs[:1] and job.outputs[0].startswith(f"{_PARTS}/"):
        return "done", ""  # a part goes when all are put together
    if state == "failed":
        return "failed", (str(beat.get("message", "")).splitlines() or [""])[0]
    if state == "stopped":
        return "stopped", str(beat.get("message", ""))
    return "waiting", ""


def _running(beat: Mapping[str, Any], now: float) -> tuple[State, str]:
    """Return the state of a stage whose heartbeat says that it runs."""
    last = number(beat, "time")
    silent, idle = now - last, now - number(beat, "progressed", last)
    host = host_name(beat.get("host"))
    if beat.get("host") == host_identity():
        if process_identity(int(beat["pid"])) != beat.get("process"):
            found = f"its process (pid {beat['pid']}) is gone without a word"
            return "failed", f"{found}: killed, often because memory ran out (dmesg)"
    elif silent > SILENT_S:
        return "stalled?", f"no sign of life from {host} (pid {beat['pid']}) for {clock(silent)}"
    items_s = _seconds_an_item(beat)
    if idle > max(IDLE_S, IDLE_ITEMS * items_s):
        return "stalled?", f"no progress on {host} (pid {beat['pid']}) for {clock(idle)}"
    return "running", progress_line(beat)


def _seconds_an_item(beat: Mapping[str, Any]) -> float:
    left = number(beat, "total") - number(beat, "done")
    return number(beat, "eta_s") / left if left > 0 else 0.0


def progress_line(beat: Mapping[str, Any]) -> str:
    """Return a heartbeat's numbers as one line."""
    parts = []
    if "epoch" in beat and "epochs" in beat:
        parts.append(f"epoch {beat['epoch'] + 1}/{beat['epochs']}")
    if beat.get("total") and "done" in beat:
        share = 100 * beat["done"] / beat["total"]
        parts.append(f"{beat.get('unit', '')} {beat['done']}/{beat['total']} ({share:.0f} %)")
    if "loss" in beat:
        parts.append(f"loss {beat['loss']:.4f}")
    if beat.get("images_per_s"):
        parts.append(f"{beat['images_per_s']:.1f} images/s")
    if "eta_s" in beat:
        parts.append(f"ETA {clock(number(beat, 'eta_s'))}")
    host = host_name(beat.get("host"))
    return ", ".join([*parts, f"on {host}, pid {beat.get('pid')}"])


def _seconds(folder: Path, job: PlannedJob, beat: Mapping[str, Any]) -> float | None:
    if job.benchmark is not None and (folder / job.benchmark).is_file():
        # Snakemake's, half written on a full disk: then the heartbeat must do.
        with suppress(UserError):
            taken = read_seconds(folder / job.benchmark)
            if taken:
                return taken
    if beat.get("state") == "done":
        return number(beat, "time") - number(beat, "started")
    return None


def _log_tail(folder: Path, job: PlannedJob) -> tuple[str, ...]:
    if job.log is None or not (folder / job.log).is_file():
        return ()
    with open(folder / job.log, "rb") as handle:
        handle.seek(0, 2)
        handle.seek(max(0, handle.tell() - _LOG_TAIL_BYTES))
        lines = handle.read().decode("utf-8", errors="replace").splitlines()
    return tuple(line for line in lines if line.strip())[-LOG_LINES:]


def _lock(folder: Path, jobs: Sequence[JobStatus]) -> str | None:
    """Return a remark on Snakemake's lock on the project that this run is in."""
    for parent in folder.absolute().parents:
        locks = parent / ".snakemake" / "locks"
        if locks.is_dir():
            break
    else:
        return None
    times = [each for each in map(_changed, locks.iterdir()) if each]
    if not times:
        return None
    since = time.strftime("%Y-%m-%d %H:%M", time.localtime(min(times)))
    if any(job.state == "running" for job in jobs):
        return f"a Snakemake works in {parent} since {since}"
    return (
        f"{parent} is locked since {since}: a Snakemake works there, or was killed. If none does "
        "any more (ps -ef | grep snakemake, on a cluster squeue --me), clear the lock:  "
        "snakemake --unlock"
    )
