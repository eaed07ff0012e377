"""Freed memory that is used again, in a process of its own."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys

import pytest

from wsss.runtime.allocation import VARIABLES

PAGES = 64 * 2**20 // os.sysconf("SC_PAGE_SIZE")
# Twenty times 64 MB, one after the other, and how many pages the system had to give for them.
PROGRAM = """
import resource
from wsss.runtime.allocation import keep_freed_memory

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


def test_who_has_said_how_is_left_alone() -> None:
    wanted = pages("")
    found = pages("keep_freed_memory()", MALLOC_TRIM_THRESHOLD_="131072")
    assert found > 0.9 * wanted
