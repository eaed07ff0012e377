"""The state of a run as text for people."""

from __future__ import annotations

import time
from collections.abc import Sequence

from wsss.monitor.status import JobStatus, RunStatus, State
from wsss.runtime.times import clock

# Small ones that take no time: they are not worth a line each.
_QUIET = ("stage_config", "count_shards")


def format_status(status: RunStatus) -> str:
    """Return the state of a run for people, one line a stage."""
    counts: dict[str, int] = {}
    for job in status.jobs:
        counts[job.state] = counts.get(job.state, 0) + 1
    order: tuple[State, ...] = ("failed", "stalled?", "stopped", "running", "waiting", "done")
    summary = ", ".join(f"{counts[state]} {state}" for state in order if state in counts)
    started = ""
    if status.planned is not None:
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(status.planned))
        started = f", started {when}"
    lines = [f"{status.folder}{started}: {summary}"]
    for rule, jobs in _by_rule(status.jobs).items():
        lines += _rule_lines(status, rule, jobs)
    if status.lock is not None:
        lines.append(status.lock)
    return "\n".join(lines)


def _by_rule(jobs: Sequence[JobStatus]) -> dict[str, list[JobStatus]]:
    grouped: dict[str, list[JobStatus]] = {}
    for job in jobs:
        grouped.setdefault(job.rule, []).append(job)
    return grouped


def _rule_lines(status: RunStatus, rule: str, jobs: Sequence[JobStatus]) -> list[str]:
    if len(jobs) == 1:
        return _job_lines(status, jobs[0], rule)
    done = sum(job.state == "done" for job in jobs)
    if done == len(jobs) or (rule in _QUIET and all(j.state in ("done", "waiting") for j in jobs)):
        state = "done" if done == len(jobs) else "waiting"
        return [f"  {state:<8}  {rule:<22}  {done} of {len(jobs)}"]
    lines = [f"  {'':<8}  {rule:<22}  {done} of {len(jobs)} done"]
    for job in jobs:
        if job.state not in ("done", "waiting"):
            lines += _job_lines(status, job, f"  {job.output}")
    return lines


def _job_lines(status: RunStatus, job: JobStatus, name: str) -> list[str]:
    note = clock(job.seconds) if job.seconds is not None else job.note
    lines = [f"  {job.state:<8}  {name:<22}  {note}".rstrip()]
    if job.log_tail:
        lines.append(f"            {status.folder / (job.log or '')} ends with:")
        lines += [f"            | {line}" for line in job.log_tail]
    return lines
