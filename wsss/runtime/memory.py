"""What a process holds of the machine's memory, where the C library is glibc.

Other C libraries are left as they are.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Mapping

# Numbers of `mallopt`, from glibc's malloc.h.
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD, M_MMAP_MAX = -1, -2, -3, -4
# Nothing is asked of the system for a single tensor, and nothing that is free goes back (-1: no
# amount is too much).
KEPT = {M_MMAP_MAX: 0, M_TRIM_THRESHOLD: -1, M_TOP_PAD: 64 * 2**20}
RETURNED = {M_MMAP_THRESHOLD: 2**20}
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
    anew, whose pages the system clears one by one: a fifth and more of a training on a CPU.
    """
    if not any(name in os.environ for name in VARIABLES):
        _set(KEPT)


def release_freed_memory() -> None:
    """Give memory that was freed back to the system.

    After a network was read, brought into another form and freed in pieces, that is a fourth of its
    size.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def return_large_blocks() -> None:
    """From now on, have every block of a megabyte or more given back as soon as it is freed.

    Left to itself, glibc comes to keep blocks of up to 32 MB, and pieces between those that are in
    use, for later ones of the same size; tensors of views at several scales are of all sizes. Costs
    the time to clear such blocks' pages again, which is little beside a convolution.
    """
    _set(RETURNED)


def _set(options: Mapping[int, int]) -> None:
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        for option, value in options.items():
            mallopt(option, value)
