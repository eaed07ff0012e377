"""What machines do to a stage, as messages: memory that runs out, helpers that die, full disks.

Libraries report these in words of their own, at places far from the cause. What cannot be
recognised here keeps its traceback.
"""

from __future__ import annotations

import errno
import re
import signal
from pathlib import Path

from wsss.errors import UserError
from wsss.files import storage_error, storage_failure

_LOADER_KILLED = re.compile(r"DataLoader worker \(pid (\d+)\) is killed by signal: ([^.]*)")
_LOADER_GONE = re.compile(r"DataLoader worker \(pid\(s\) ([\d, ]+)\) exited unexpectedly")
# "Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79.10 GiB of which 1.20 GiB is free."
_NEEDED = re.compile(r"Tried to allocate ([\d.]+ \w+)")
_CAPACITY = re.compile(
    r"GPU (\d+) has a total capacity of ([\d.]+ \w+) of which ([\d.]+ \w+) is free"
)
# Of the driver, of cuBLAS and of Apple's GPUs, which raise errors of other types.
_GPU_MEMORY = re.compile(
    r"CUDA error: out of memory|CUBLAS_STATUS_ALLOC_FAILED|MPS backend out of memory"
)
_HOST_MEMORY = re.compile(r"DefaultCPUAllocator: (?:can't allocate|not enough) memory")
# A path that this account, or nobody, can follow.
_BARRED = (errno.EACCES, errno.EPERM, errno.ENAMETOOLONG, errno.ELOOP)
_HOST_NEEDED = re.compile(r"you tried to allocate (\d+) bytes")


def explain(error: BaseException, doing: str, output: Path | None = None) -> UserError | None:
    """Return the message for an error that the machine caused; None: it is something else.

    Args:
        error: What a stage raised.
        doing: What the stage was doing, where the error does not say.
        output: What it writes, whose disk is meant where the error does not say.
    """
    for recognise in (gpu_memory, host_memory, dead_worker):
        found = recognise(error, doing)
        if found is not None:
            return found
    number = storage_failure(error)
    if number is not None:
        return storage_error(number, _written(error) or output or doing)
    if isinstance(error, OSError) and error.errno in _BARRED and error.filename:
        return UserError(
            f"this cannot be opened: {error.strerror}",
            where=error.filename,
            fix="check the path, and the permissions of it and of the folders above it",
        )
    return None


def gpu_memory(error: BaseException, doing: str, *, fix: str | None = None) -> UserError | None:
    """Return the message for `torch.OutOfMemoryError`, and for what the driver says of it."""
    if type(error).__name__ != "OutOfMemoryError" and not _GPU_MEMORY.search(str(error)):
        return None
    needed, capacity = _NEEDED.search(str(error)), _CAPACITY.search(str(error))
    found = "the GPU ran out of memory"
    if needed:
        found += f": {needed[1]} more were needed"
    if capacity:
        found += f", {capacity[3]} of {capacity[2]} were free on GPU {capacity[1]}"
    return UserError(
        found,
        where=doing,
        expected="a GPU that nothing else uses (nvidia-smi), with enough memory for this stage",
        fix=fix
        or "end what else runs on it, use a larger GPU, or set fewer or smaller `scales` for "
        "this stage; then start again",
    )


def host_memory(error: BaseException, doing: str) -> UserError | None:
    """Return the message for main memory that could not be had."""
    text = str(error)
    if not (isinstance(error, MemoryError) or _HOST_MEMORY.search(text)):
        return None
    needed = _HOST_NEEDED.search(text)
    amount = f": {int(needed[1]) / 1e9:.1f} GB more were needed" if needed else ""
    return UserError(
        f"this machine ran out of memory{amount}",
        where=doing,
        fix="ask the scheduler for more (mem_mb), lower compute.workers, or choose smaller "
        "pictures and batches; then start again",
    )


def dead_worker(error: BaseException, doing: str) -> UserError | None:
    """Return the message for a helper process that ended before its work did."""
    killed, gone = _LOADER_KILLED.search(str(error)), _LOADER_GONE.search(str(error))
    if killed:
        who = f"a process that loads images (pid {killed[1]}) was killed: {killed[2]}"
    elif gone:
        who = f"a process that loads images (pid {gone[1]}) ended unexpectedly"
    elif type(error).__name__ == "BrokenProcessPool":
        who = "a helper process of this stage was killed"
    else:
        return None
    return UserError(
        who,
        where=doing,
        expected="helper processes that live as long as the stage",
        fix="most often memory ran out (see dmesg or the scheduler's account of the job): ask for "
        "more (mem_mb) or lower compute.workers; then start again: a training goes on from its "
        "checkpoint",
    )


def _written(error: BaseException) -> str | None:
    """Return the file that an error, or what it came from, says it was about."""
    seen: BaseException | None = error
    while seen is not None:
        if getattr(seen, "filename", None):
            return str(seen.filename)  # type: ignore[attr-defined]
        seen = seen.__cause__ or seen.__context__
    return None


def signal_name(number: int) -> str:
    """Return a signal's name, or its number where it has none."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
