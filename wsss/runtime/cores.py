"""How many cores this process may use: physical ones, of its affinity and its cgroup's share."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path


def usable_cores(root: Path = Path("/")) -> int:
    """Return the number of physical cores that this process may use, 1 or more.

    Two hardware threads of one core count once: arithmetic gains nothing from the second. Where the
    system does not tell (macOS, Windows), every processor that it names counts as a core.

    Args:
        root: Where `/proc` and `/sys` lie; another folder only in tests.
    """
    allowed = (
        os.sched_getaffinity(0)
        if hasattr(os, "sched_getaffinity")
        else set(range(os.cpu_count() or 1))
    )
    cores = _physical(allowed, root / "sys/devices/system/cpu")
    return max(1, min([cores, *_quotas(root)]))


def _physical(processors: Iterable[int], folder: Path) -> int:
    """Return the number of cores that processors belong to."""
    cores = set()
    for number in processors:
        siblings = _read(folder / f"cpu{number}/topology/thread_siblings_list")
        cores.add(siblings or str(number))
    return len(cores)


def _quotas(root: Path) -> Iterator[int]:
    """Yield the whole processors that each cgroup around this process allows, where it limits."""
    for line in (_read(root / "proc/self/cgroup") or "").splitlines():
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        if controllers and "cpu" not in controllers.split(","):
            continue
        mount = root / "sys/fs/cgroup" / ("cpu" if controllers else "")
        # In a container the path may be the host's, of which only the mount's own root is seen.
        inner = mount.joinpath(*Path(path).parts[1:])
        for folder in (inner, *inner.parents):
            quota, period = _limit(folder)
            if quota > 0 < period:
                yield max(1, quota // period)
            if folder == mount:
                break


def _limit(folder: Path) -> tuple[int, int]:
    """Return microseconds of processor time in how many microseconds; (0, 0): no limit."""
    words = (_read(folder / "cpu.max") or "").split()
    if not words:
        names = ("cpu.cfs_quota_us", "cpu.cfs_period_us")
        words = [_read(folder / name) or "" for name in names]
    try:
        quota, period = (int(word) for word in words)
    except ValueError:  # "max", or no such file
        return 0, 0
    return quota, period


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return None
