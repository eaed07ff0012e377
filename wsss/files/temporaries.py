"""The names of outputs that are being written, and what killed writers have left of them.

An output is written under a hidden name beside its place, which says who writes it: machine,
and process on it. A file server has many machines, and not always locks, so a temporary goes only
when its writer is surely gone: where a lock says that nobody else writes, or where the process was
of this very machine, since it was started, and is no more.
"""

from __future__ import annotations

import glob
import hashlib
import os
import re
import shutil
import socket
import sys
from contextlib import suppress
from functools import cache
from pathlib import Path

_ENDINGS = ("tmp", "old")
# Host, start of the machine, process; earlier versions wrote the process alone.
_WRITER = re.compile(r"(?:(?P<host>[A-Za-z0-9_-]+-[0-9a-f]{8})-)?(?P<pid>[0-9]+)")


@cache
def _host() -> str:
    """Return what a process's number is valid in: a machine since its start, or a container."""
    known = [socket.gethostname()]
    for place in ("/proc/sys/kernel/random/boot_id", "/proc/self/ns/pid"):
        with suppress(OSError):
            path = Path(place)
            known.append(str(path.readlink()) if path.is_symlink() else path.read_text("ascii"))
    name = re.sub(r"[^A-Za-z0-9_-]", "-", known[0].partition(".")[0])[:32] or "host"
    return f"{name}-{hashlib.sha256(repr(known).encode()).hexdigest()[:8]}"


def temporary_sibling(path: Path, ending: str = "tmp") -> Path:
    """Return a name beside `path` that is this process's own."""
    # Same folder, so that the rename stays within one file system; hidden, so that no glob for
    # results picks it up.
    return path.parent / f".{path.name}.{_host()}-{os.getpid()}.{ending}"


def remove_leftovers(path: str | os.PathLike[str], *, alone: bool = True) -> None:
    """Remove what killed writers of `path` have left beside it.

    Args:
        path: The output.
        alone: Whether it is certain, by a lock, that nobody else writes it. Otherwise only what
            processes of this machine have left goes, and what else there is is named.
    """
    final = Path(path)
    kept = []
    for left in final.parent.glob(f".{glob.escape(final.name)}.*"):
        writer, _, ending = left.name.removeprefix(f".{final.name}.").partition(".")
        known = _WRITER.fullmatch(writer)
        if known is None or ending not in _ENDINGS:
            continue
        if alone or (known["host"] == _host() and _is_gone(int(known["pid"]))):
            remove(left)
        elif int(known["pid"]) != os.getpid() or known["host"] != _host():
            kept.append(left)
    if kept:
        print(
            f"{', '.join(map(str, kept))}: somebody may be writing this; without locks that cannot "
            "be told. If nobody is, remove it",
            file=sys.stderr,
        )


def _is_gone(pid: int) -> bool:
    """Say whether there is surely no process of this number on this machine."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):
        return False
    try:
        # A zombie writes nothing any more. Bytes, as a process can call itself anything.
        state = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0]
    except (OSError, IndexError):
        return False
    return state == b"Z"


def remove(path: Path) -> None:
    """Remove a file or a folder of ours, if it is there and that is possible."""
    # Called while an error is on its way, which another one may not hide.
    with suppress(OSError):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
