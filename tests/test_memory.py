"""Memory is given back to the system."""

from __future__ import annotations

import subprocess
import sys

import pytest

# Pieces are freed below one that stays, which keeps the heap from shrinking by itself.
HOLES = """
import os
from wsss.memory import release_freed_memory
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
pieces = [bytearray(60_000) for _ in range(2_000)]
last = bytearray(60_000)
del pieces
before = resident()
release_freed_memory()
print(before - resident())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only glibc is asked to")
def test_freed_pieces_go_back() -> None:
    done = subprocess.run(
        [sys.executable, "-c", HOLES], stdout=subprocess.PIPE, text=True, check=True
    )
    assert int(done.stdout) > 50e6
