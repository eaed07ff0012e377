"""The number of threads that a run computes with: settled when it begins, and kept to.

The order of summation follows it, and with it the bytes of the results. So what `auto` came to is
recorded in the run's folder, and a run goes on with it on another machine, too.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from wsss.errors import UserError
from wsss.files import read_json, write_json

RECORD = "threads.json"
# What a run without a record began with, when a number was the default.
BEFORE_RECORDS = 2


def threads_of(folder: Path, configured: int | Literal["auto"], *, here: int) -> int:
    """Return the threads of a run's stages.

    Args:
        folder: The run's, `results/<run>`; it need not exist.
        configured: `compute.threads`; a number holds whatever the run began with.
        here: What `auto` is for a run that begins now.

    Raises:
        UserError: The record is damaged.
    """
    if configured != "auto":
        return configured
    record = folder / RECORD
    if record.exists():
        values = read_json(record)
        threads = values.get("threads") if isinstance(values, dict) else None
        if not isinstance(threads, int) or threads < 1:
            raise UserError(
                f"the threads of this run are {threads!r}",
                where=record,
                expected='{"threads": 1} or more',
                fix="set compute.threads to a number, which is recorded then",
            )
        return threads
    return BEFORE_RECORDS if (folder / "config").is_dir() else here


def record_threads(folder: Path, threads: int) -> None:
    """Keep what a run computes with from now on."""
    record = folder / RECORD
    value = {"threads": threads}
    if not record.exists() or read_json(record) != value:
        write_json(record, value)
