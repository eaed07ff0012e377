"""How a program ends that has loaded CUDA's libraries, whether it used them or not."""

from __future__ import annotations

import atexit
import os
import sys
import threading


def end(status: int) -> int:
    """End this process at once where it holds PyTorch; else return the status, to end with it.

    What Python does at its end is done: threads are waited for, what is registered with `atexit` is
    called, the streams are emptied. Only the libraries do not take leave: those of CUDA read 150 MB
    of themselves for that, and take a second.

    Args:
        status: The exit status.
    """
    # What Python calls itself at its end, in this order; its names are not promised to stay.
    last = [getattr(threading, "_shutdown", None), getattr(atexit, "_run_exitfuncs", None)]
    if "torch" not in sys.modules or None in last:
        return status
    for call in filter(None, last):
        call()
    try:
        for stream in filter(None, (sys.stdout, sys.stderr)):
            stream.flush()
    except (OSError, ValueError):
        # Whoever read them is gone, or a disk is full: Python has words and a status for that.
        return status
    os._exit(status)
