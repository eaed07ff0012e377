"""How a program ends that has loaded CUDA's libraries, whether it used them or not."""

from __future__ import annotations

import atexit
import ctypes
import os
import sys
import threading


def end(status: int) -> int:
    """End this process at once where it holds PyTorch; else return the status, to end with it.

    What Python does at its end is done: threads are waited for, what is registered with `atexit` is
    called, the streams are emptied, those of C too. Only the libraries' own clean-up is skipped:
    those of CUDA read 150 MB of themselves for that, and take a second.

    Args:
        status: The exit status.
    """
    if "torch" not in sys.modules or _is_watched():
        return status
    # What Python calls itself at its end, in this order; its names are not promised to stay.
    last = [getattr(threading, "_shutdown", None), getattr(atexit, "_run_exitfuncs", None)]
    if None in last:
        return status
    for call in filter(None, last):
        call()
    try:
        for stream in filter(None, (sys.stdout, sys.stderr)):
            stream.flush()
    except (OSError, ValueError):
        # Whoever read them is gone, or a disk is full: Python has words and a status for that.
        return status
    ctypes.CDLL(None).fflush(None)
    os._exit(status)


def _is_watched() -> bool:
    """Say whether a debugger, a profiler or a person goes on when the program is at its end."""
    monitoring = getattr(sys, "monitoring", None)  # from Python 3.12 on
    tools = [monitoring.get_tool(number) for number in range(6)] if monitoring else []
    return (
        sys.gettrace() is not None
        or sys.getprofile() is not None
        or any(tools)
        or bool(sys.flags.interactive or os.environ.get("PYTHONINSPECT"))
        or threading.current_thread() is not threading.main_thread()
    )
