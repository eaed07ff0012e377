"""How glibc's allocator treats the memory that large tensors leave behind."""

from __future__ import annotations

import ctypes
import os

# Numbers of `mallopt`, from glibc's malloc.h, and what they are set to: nothing is asked of the
# system for a single tensor, and nothing that is free goes back (-1: no amount is too much).
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4
KEPT = {M_MMAP_MAX: 0, M_TRIM_THRESHOLD: -1, M_TOP_PAD: 64 * 2**20}
# Whoever sets one of them has decided.
VARIABLES = (
    "GLIBC_TUNABLES",
    "MALLOC_MMAP_MAX_",
    "MALLOC_MMAP_THRESHOLD_",
    "MALLOC_TOP_PAD_",
    "MALLOC_TRIM_THRESHOLD_",
)


def keep_freed_memory() -> None:
    """Have this process use memory again that it has freed, unless the user said how.

    By itself glibc gives every tensor above 32 MB back to the system and asks for the next one
    anew, whose pages the system clears one by one: a fifth and more of a training on a CPU. Other
    C libraries are left as they are.
    """
    if any(name in os.environ for name in VARIABLES):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        for option, value in KEPT.items():
            mallopt(option, value)
