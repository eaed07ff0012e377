"""What a process holds of the machine's memory."""

from __future__ import annotations

import ctypes
import sys


def release_freed_memory() -> None:
    """Give memory that was freed back to the system, where the C library keeps it (glibc).

    After a network was read, brought into another form and freed in pieces, that is a fourth of its
    size.
    """
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)
