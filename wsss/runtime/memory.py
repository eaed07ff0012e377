"""What a process holds of the machine's memory."""

from __future__ import annotations

import ctypes
import sys

# glibc's number of the setting, and the size from which it shall hold.
_MMAP_THRESHOLD = -3
_LARGE_BYTES = 2**20


def release_freed_memory() -> None:
    """Give memory that was freed back to the system, where the C library keeps it (glibc).

    After a network was read, brought into another form and freed in pieces, that is a fourth of its
    size.
    """
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)


def return_large_blocks() -> None:
    """From now on, have every block of a megabyte or more given back as soon as it is freed.

    Left to itself, glibc comes to keep blocks of up to 32 MB, and pieces between those that are in
    use, for later ones of the same size; tensors of views at several scales are of all sizes. Costs
    the time to clear such blocks' pages again, which is little beside a convolution.
    """
    if sys.platform == "linux":
        setting = getattr(ctypes.CDLL(None), "mallopt", None)
        if setting is not None:
            setting(_MMAP_THRESHOLD, _LARGE_BYTES)
