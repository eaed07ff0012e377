"""Feeds readers with damaged files in a process of their own, and counts what must not be."""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

# Of computing; and of waiting, on a machine that is busy with other things.
SLOWEST_S = 10.0
LONGEST_WAIT_S = 90.0
MOST_BYTES = 10**9
# To start a process, import PyTorch and write the sound files, on a busy machine.
_START_S = 180.0
_TESTS = Path(__file__).parents[1]


@dataclass
class Result:
    """What became of the damaged files.

    Attributes:
        counts: `read`, `refused`, and the kinds of faults.
        faults: Number of the mutation, and what happened; the first ones.
        slowest_s: The longest that one took, busy machine and all.
        most_bytes: The most memory above what the process had at its start.
    """

    counts: Counter[str] = field(default_factory=Counter)
    faults: list[tuple[int, str]] = field(default_factory=list)
    slowest_s: float = 0.0
    most_bytes: int = 0

    def fault(self, number: int, kind: str, text: str) -> None:
        """Count a fault."""
        self.counts[kind] += 1
        self.faults.append((number, text))


def fuzz(name: str, count: int, *, seed: int = 0, start: int = 0) -> Result:
    """Read `count` damaged files of a kind."""
    result, stop = Result(), start + count
    while start < stop:
        start = _watch(name, start, stop, seed, result)
    return result


def _watch(name: str, start: int, stop: int, seed: int, result: Result) -> int:
    """Run one process until it ends or has to; return the number to go on with."""
    arguments = [name, str(start), str(stop), str(seed)]
    environment = {**os.environ, "PYTHONPATH": f"{_TESTS.parent}:{_TESTS}", "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        [sys.executable, "-m", "fuzz.worker", *arguments],
        stdout=subprocess.PIPE,
        env=environment,
        cwd=_TESTS.parent,
    ) as process:
        assert process.stdout is not None
        os.set_blocking(process.stdout.fileno(), False)
        waiting = selectors.DefaultSelector()
        waiting.register(process.stdout, selectors.EVENT_READ)
        number, since, used, base, rest = -1, time.monotonic(), 0.0, 0, b""
        try:
            while True:
                waiting.select(timeout=0.05)
                chunk = process.stdout.read()
                now = time.monotonic()
                if chunk == b"":
                    break
                *lines, rest = (rest + (chunk or b"")).split(b"\n")
                for line in map(json.loads, lines):
                    if isinstance(line, int):
                        number, since, used = line, now, _computed(process.pid)
                        base = base or _memory(process.pid)
                        continue
                    result.slowest_s = max(result.slowest_s, now - since)
                    if line in ("read", "refused"):
                        result.counts[line] += 1
                    else:
                        result.fault(number, "traceback", line)
                extra = _memory(process.pid) - base if base else 0
                result.most_bytes = max(result.most_bytes, extra)
                limit = LONGEST_WAIT_S if number >= 0 else _START_S
                busy = number >= 0 and _computed(process.pid) - used > SLOWEST_S
                if busy or now - since > limit or extra > MOST_BYTES:
                    kind = "memory" if extra > MOST_BYTES else "slow"
                    result.fault(number, kind, f"{now - since:.1f} s, {extra / 1e6:.0f} MB more")
                    process.kill()
                    return max(number, start) + 1
            process.wait(timeout=_START_S)
        finally:
            process.kill()
        if number < 0:
            raise RuntimeError(f"what is sound of {name!r} cannot be read")
        if process.returncode != 0 or number + 1 < stop:
            result.fault(number, "died", f"the process ended with {process.returncode}")
            return max(number, start) + 1
    return stop


def _memory(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError):
        return 0


def _computed(pid: int) -> float:
    """Return the seconds that a process has computed for."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
