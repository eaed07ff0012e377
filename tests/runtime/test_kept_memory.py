"""Freed memory that is used again, in a process of its own."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

from wsss.runtime.memory import M_MMAP_MAX, M_TRIM_THRESHOLD, VARIABLES, keep_freed_memory

PAGES = 64 * 2**20 // os.sysconf("SC_PAGE_SIZE")
# Twenty times 64 MB, one after the other, and how many pages the system had to give for them.
PROGRAM = """
import resource
from wsss.runtime.memory import keep_freed_memory

{call}
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    bytearray(64 * 2**20)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""

pytestmark = pytest.mark.skipif(
    not hasattr(ctypes.CDLL(None), "mallopt"), reason="the C library has no mallopt"
)


def pages(call: str, **variables: str) -> int:
    kept = {name: value for name, value in os.environ.items() if name not in VARIABLES}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(call=call)],
        env={**kept, **variables},
        capture_output=True,
        text=True,
        check=True,
    )
    return int(done.stdout)


def test_freed_memory_is_used_again() -> None:
    # Once for all of them; large pages, where the system hands them out by itself, are fewer.
    assert pages("keep_freed_memory()") < 2 * PAGES


def test_no_amount_is_too_much(monkeypatch: pytest.MonkeyPatch) -> None:
    # What glibc would give back, had it 2 GB and more of it, cannot be tried in every machine.
    said = []
    monkeypatch.setattr(
        "wsss.runtime.memory.ctypes.CDLL",
        lambda _: SimpleNamespace(mallopt=lambda option, value: said.append((option, value))),
    )
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    keep_freed_memory()
    assert (M_TRIM_THRESHOLD, -1) in said
    assert (M_MMAP_MAX, 0) in said


def test_who_has_said_how_is_left_alone() -> None:
    wanted = pages("")
    found = pages("keep_freed_memory()", MALLOC_TRIM_THRESHOLD_="131072")
    assert found > 0.9 * wanted
