"""Memory is given back to the system."""

from __future__ import annotations

import subprocess
import sys

import pytest

# Pieces are freed below one that stays, which keeps the heap from shrinking by itself.
HOLES = """
import os
from wsss.runtime.memory import release_freed_memory
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
pieces = [bytearray(60_000) for _ in range(2_000)]
last = bytearray(60_000)
del pieces
before = resident()
release_freed_memory()
print(before - resident())
"""


# Freeing one block teaches the C library to take the next from its heap, where a piece above it
# keeps it from going back.
BLOCKS = """
import os, sys
from wsss.runtime.memory import return_large_blocks
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
if sys.argv[1] == "returned":
    return_large_blocks()
block = bytearray(20_000_000)
del block
block, above = bytearray(20_000_000), bytearray(60_000)
before = resident()
del block
print(before - resident())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only glibc is asked to")
def test_freed_pieces_go_back() -> None:
    done = subprocess.run(
        [sys.executable, "-c", HOLES], stdout=subprocess.PIPE, text=True, check=True
    )
    assert int(done.stdout) > 50e6


@pytest.mark.skipif(sys.platform != "linux", reason="only glibc is asked to")
@pytest.mark.parametrize(("how", "goes_back"), [("kept", False), ("returned", True)])
def test_large_blocks_go_back_when_asked(how: str, goes_back: bool) -> None:
    done = subprocess.run(
        [sys.executable, "-c", BLOCKS, how], stdout=subprocess.PIPE, text=True, check=True
    )
    assert (int(done.stdout) > 15e6) == goes_back
