"""Cores that a process may use: hardware threads count once, affinity and cgroups hold."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from wsss.runtime.cores import usable_cores
from wsss.runtime.openmp import SPINNING, VARIABLES, wait_politely


def machine(root: Path, files: dict[str, str], *, siblings: list[str]) -> Path:
    """Write a machine whose processor i shares its core with `siblings[i]`."""
    written = {
        f"sys/devices/system/cpu/cpu{i}/topology/thread_siblings_list": text
        for i, text in enumerate(siblings)
    }
    for name, text in (written | files).items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")
    return root


TWO_THREADS_EACH = ["0,4", "1,5", "2,6", "3,7"] * 2


@pytest.mark.parametrize(
    ("allowed", "files", "cores"),
    [
        (range(8), {}, 4),
        ([0, 4], {}, 1),
        ([0, 1, 6], {}, 3),
        (range(8), {"proc/self/cgroup": "0::/job", "sys/fs/cgroup/job/cpu.max": "max 100000"}, 4),
        (
            range(8),
            {"proc/self/cgroup": "0::/job", "sys/fs/cgroup/job/cpu.max": "250000 100000"},
            2,
        ),
        (range(8), {"proc/self/cgroup": "0::/job", "sys/fs/cgroup/job/cpu.max": "50000 100000"}, 1),
        # The limit of a group above holds, too, and in a container only the mount's root is seen.
        (range(8), {"proc/self/cgroup": "0::/a/b", "sys/fs/cgroup/a/cpu.max": "300000 100000"}, 3),
        (range(8), {"proc/self/cgroup": "0::/host/x", "sys/fs/cgroup/cpu.max": "100000 100000"}, 1),
        # The first version of cgroups.
        (
            range(8),
            {
                "proc/self/cgroup": "5:memory:/job\n3:cpu,cpuacct:/job",
                "sys/fs/cgroup/cpu/job/cpu.cfs_quota_us": "200000",
                "sys/fs/cgroup/cpu/job/cpu.cfs_period_us": "100000",
            },
            2,
        ),
        (
            range(8),
            {
                "proc/self/cgroup": "3:cpu,cpuacct:/job",
                "sys/fs/cgroup/cpu/job/cpu.cfs_quota_us": "-1",
                "sys/fs/cgroup/cpu/job/cpu.cfs_period_us": "100000",
            },
            4,
        ),
    ],
)
def test_cores(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    allowed: list[int],
    files: dict[str, str],
    cores: int,
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(allowed), raising=False)
    assert usable_cores(machine(tmp_path, files, siblings=TWO_THREADS_EACH)) == cores


def test_a_system_that_tells_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert usable_cores(tmp_path) == 6


def test_this_machine() -> None:
    assert 1 <= usable_cores() <= (os.cpu_count() or 1)


@pytest.mark.parametrize("own", [None, *VARIABLES])
def test_how_threads_wait_is_the_users_to_say(
    monkeypatch: pytest.MonkeyPatch, own: str | None
) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    if own is not None:
        monkeypatch.setenv(own, "7")
    monkeypatch.setattr(os, "environ", dict(os.environ))
    wait_politely()
    found = {name: os.environ[name] for name in VARIABLES if name in os.environ}
    assert found == (SPINNING if own is None else {own: "7"})
