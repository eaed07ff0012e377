"""A stage's sign of life: one small file beside its output, for `wsss status` to read.

The file is hidden and named after the output, `.cams.h5.heartbeat.json` beside `cams.h5`, so that
who knows a stage's outputs finds it, on whatever machine the stage runs. It is no result: a stage
that cannot write it goes on without.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

State = Literal["running", "done", "failed", "stopped"]

# How often the file is renewed: at progress, and by a thread while there is none, so that a long
# step is told from a dead process.
PROGRESS_INTERVAL_S = 2.0
ALIVE_INTERVAL_S = 15.0


def heartbeat_file(output: str | os.PathLike[str]) -> Path:
    """Return where the stage that writes `output` keeps its heartbeat."""
    path = Path(output)
    return path.parent / f".{path.name}.heartbeat.json"


def process_identity(pid: int) -> str | None:
    """Return what tells process `pid` from later ones of that number; None: it is not there.

    Empty on systems without /proc, where the number alone must do.
    """
    try:
        # Bytes, as a process can call itself anything.
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return None if Path("/proc/self/stat").exists() else ""
    # A zombie has ended; only its parent has not looked yet.
    return None if fields[0] == b"Z" else fields[19].decode()


def host_identity() -> str:
    """Return what this process's number is valid in: a machine since its start, or a container.

    Its name comes first, then what tells it from others of that name, as clones have it.
    """
    parts = [socket.gethostname()]
    for read in (_boot, lambda: str(Path("/proc/self/ns/pid").readlink())):
        with suppress(OSError):
            parts.append(read())
    return " ".join(parts)


def _boot() -> str:
    # Drawn by the kernel when it starts: it says nothing of the machine.
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()[:8]


def is_here(identity: object) -> bool:
    """Say whether what `host_identity` gave is of here; earlier versions kept the name alone."""
    return identity in (socket.gethostname(), host_identity())


def host_name(identity: object) -> str:
    """Return the name in what `host_identity` gave, and whether it is another of our name."""
    text = str(identity or "")
    name = text.partition(" ")[0]
    if name == socket.gethostname() and not is_here(text):
        return f"{name} (another machine of this name, a container, or this one before its start)"
    return name


class Heartbeat:
    """Keeps one file up to date while a stage runs.

    Args:
        path: The file.
        command: The stage's subcommand.
    """

    def __init__(self, path: Path, command: str) -> None:
        now = time.time()
        self._path, self._pid = path, os.getpid()
        self._values: dict[str, Any] = {
            "command": command,
            "state": "running",
            "host": host_identity(),
            "pid": self._pid,
            "process": process_identity(self._pid),
            "started": now,
            "progressed": now,
        }
        self._lock = threading.Lock()
        self._written = 0.0
        self._ended = threading.Event()
        self._write()
        self._thread = threading.Thread(target=self._keep_alive, name="heartbeat", daemon=True)
        self._thread.start()

    def update(self, values: Mapping[str, Any]) -> None:
        """Tell of progress: how far the stage is, and what it reports."""
        if os.getpid() != self._pid:  # a forked worker: its parent speaks for both
            return
        self._values.update(values, progressed=time.time())
        if time.monotonic() - self._written >= PROGRESS_INTERVAL_S:
            self._write()

    def finish(self, state: State, message: str | None = None) -> None:
        """Write the last state and stop."""
        self._ended.set()
        self._thread.join()
        self._values["state"] = state
        if message is not None:
            self._values["message"] = message
        self._write()

    def _keep_alive(self) -> None:
        while not self._ended.wait(ALIVE_INTERVAL_S):
            self._write()

    def _write(self) -> None:
        temporary = self._path.with_name(f"{self._path.name}.tmp")
        with self._lock, suppress(OSError):
            self._written = time.monotonic()
            text = json.dumps({**self._values, "time": time.time()})
            self._path.parent.mkdir(parents=True, exist_ok=True)
            # Not synced: nothing depends on it, and a network file system would be kept busy.
            temporary.write_text(text + "\n", encoding="utf-8")
            os.replace(temporary, self._path)


_current: Heartbeat | None = None


def beat(**values: Any) -> None:
    """Tell the heartbeat of the stage that this process runs, if it runs one, of progress."""
    if _current is not None:
        _current.update(values)


@contextmanager
def beating(output: Path, command: str) -> Iterator[Heartbeat]:
    """Keep the heartbeat of the stage that writes `output`; the caller says how it ended."""
    global _current
    heartbeat = _current = Heartbeat(heartbeat_file(output), command)
    try:
        yield heartbeat
    finally:
        _current = None
