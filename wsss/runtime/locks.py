"""A stage's lock on its output: two processes never write the same one.

Killing Snakemake, or losing the connection to a node, can leave a stage running that nobody
waits for. When the run is started again, both would write the same checkpoint and the same
output. So a stage holds a lock, as a hidden file beside its output (`.cams.h5.lock`), which says
who holds it. The lock itself is the operating system's (POSIX record lock on that file): it ends
with the process however that ends, reaches over NFS to other machines, and what a killed process
leaves behind is a file that nobody holds, which the next start takes over.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shlex
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

from wsss.errors import UserError
from wsss.files import storage_error, storage_failure
from wsss.runtime.heartbeat import host_identity, host_name, is_here

# A stage that was told to stop saves its checkpoint first; a start right after waits that long.
WAIT_S = 30.0
_POLL_S = 0.2
_UNSUPPORTED = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)


def lock_file(output: str | os.PathLike[str]) -> Path:
    """Return the file whose lock guards `output`."""
    path = Path(output)
    return path.parent / f".{path.name}.lock"


@contextmanager
def output_lock(
    output: str | os.PathLike[str], command: str, *, wait_s: float | None = None
) -> Iterator[bool]:
    """Hold the lock on `output`; where another process holds it, wait a little for that to end.

    On a file system without locks the work goes on without one, and says so once.

    Yields:
        Whether it is locked, so that nobody else writes there.

    Args:
        output: File or folder that will be written.
        command: Who writes it, for others to read.
        wait_s: How long to wait; None: `WAIT_S`.

    Raises:
        UserError: Another process writes it, or there can be no file beside it.
    """
    path = lock_file(output)
    descriptor = _acquire(path, Path(output), WAIT_S if wait_s is None else wait_s)
    if descriptor is None:
        yield False
        return
    try:
        _sign(descriptor, command)
        yield True
    finally:
        # Removed while it is held: who waits for it sees that its file is gone, and starts over.
        with suppress(OSError):
            path.unlink()
        os.close(descriptor)


def _acquire(path: Path, output: Path, wait_s: float) -> int | None:
    """Return the descriptor of the locked file, or None where the file system has no locks."""
    deadline = time.monotonic() + wait_s
    told = False
    while True:
        descriptor = _open(path)
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = _holder(descriptor)
            os.close(descriptor)
            if error.errno in _UNSUPPORTED:
                _tell_of_no_locks(path.parent, error.strerror)
                with suppress(OSError):
                    path.unlink()
                return None
            if error.errno not in (errno.EACCES, errno.EAGAIN):
                raise
            if time.monotonic() >= deadline:
                raise _held(output, holder) from None
            if not told:
                print(
                    f"{output}: {_who(holder)} is writing it; waiting {wait_s:.0f} s for it to end",
                    file=sys.stderr,
                    flush=True,
                )
                told = True
            time.sleep(_POLL_S)
            continue
        if _is_still(path, descriptor):
            return descriptor
        # Its last holder removed the file between our opening and our locking it.
        os.close(descriptor)


@cache
def _tell_of_no_locks(folder: Path, reason: str | None) -> None:
    """Say it once a process and folder."""
    print(
        f"{folder}: this file system has no locks ({reason}); make sure that no other process "
        "writes what is written here",
        file=sys.stderr,
    )


def _open(path: Path) -> int:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError as error:
        number = storage_failure(error)
        if number is not None:
            raise storage_error(number, path.parent) from error
        raise UserError(
            f"cannot make the file that guards this output: {error.strerror}",
            where=path,
            fix="check that folder and the permission to write there, then start again",
        ) from error


def _is_still(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _sign(descriptor: int, command: str) -> None:
    holder = {
        "pid": os.getpid(),
        "host": host_identity(),
        "since": datetime.now().astimezone().isoformat(timespec="seconds"),
        "command": command,
        "job": os.environ.get("SLURM_JOB_ID"),
    }
    # What it says only helps people: a full disk must not stop a stage here.
    with suppress(OSError):
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(holder).encode() + b"\n", 0)


def _holder(descriptor: int) -> dict[str, Any]:
    try:
        found = json.loads(os.pread(descriptor, 4096, 0))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _who(holder: dict[str, Any]) -> str:
    if not holder:
        return "another process"
    job = f", Slurm job {holder['job']}" if holder.get("job") else ""
    place = host_name(holder.get("host"))
    return (
        f"process {holder.get('pid')} on {place} (wsss {holder.get('command')}{job}, "
        f"since {holder.get('since')})"
    )


def _held(output: Path, holder: dict[str, Any]) -> UserError:
    elsewhere = bool(holder) and not is_here(holder.get("host"))
    end = "end it"
    if holder.get("job"):
        end = f"end it:  scancel {holder['job']}"
    elif holder:
        there = f"ssh {str(holder.get('host')).partition(' ')[0]} " if elsewhere else ""
        end = f"end it:  {there}kill {holder.get('pid')}"
    if elsewhere:
        # A file server may keep the lock of a machine that it has not heard of for long.
        end += f"  (if that machine is gone:  rm {shlex.quote(str(lock_file(output)))})"
    return UserError(
        f"{_who(holder)} is writing this output",
        where=output,
        expected="one process at a time; a stage of an earlier start may still be running",
        fix=f"wait until it has finished, or {end}; then start again",
    )
