"""The number of threads that a run computes with: settled when it begins, and kept to.

The order of summation follows it, and with it the bytes of the results. So what `auto` came to is
recorded in the run's folder, and a run goes on with it on another machine, too.
"""

from __future__ import annotations

from contextlib import suppress
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
        threads = _recorded(record)
        if threads is None:
            raise UserError(
                "this does not say how many threads the run computes with",
                where=record,
                expected='{"threads": 1} or more',
                fix="set compute.threads to the number, which is recorded then",
            )
        return threads
    return BEFORE_RECORDS if (folder / "config").is_dir() else here


def record_threads(folder: Path, threads: int) -> None:
    """Keep what a run computes with from now on."""
    record = folder / RECORD
    if _recorded(record) != threads:
        write_json(record, {"threads": threads})


def _recorded(record: Path) -> int | None:
    """Return what a record says; None: there is none, or it is damaged."""
    with suppress(UserError):
        values = read_json(record)
        threads = values.get("threads") if isinstance(values, dict) else None
        if type(threads) is int and threads > 0:
            return threads
    return None
