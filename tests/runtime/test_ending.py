"""A program that holds PyTorch ends without its libraries, and without losing anything of ours."""

from __future__ import annotations

import subprocess
import sys

import pytest

# A C library that ends the process by a signal when it is asked to take leave; what Python does at
# its end; and something that stands for PyTorch, or nothing.
PROGRAM = """
import atexit, ctypes, sys, threading, time

libc = ctypes.CDLL(None)
libc.__cxa_atexit(ctypes.cast(libc.abort, ctypes.c_void_p), None, None)
atexit.register(print, "registered")

def last():
    time.sleep(0.3)
    print("thread")

import wsss.cli
if sys.argv.pop(1) == "torch":
    sys.modules["torch"] = sys
threading.Thread(target=last).start()
sys.exit(wsss.cli.main())
"""


def _run(held: str) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-c", PROGRAM, held, "status", "nothing-like-it"]
    return subprocess.run(words, capture_output=True, text=True, check=False)


@pytest.mark.skipif(sys.platform != "linux", reason="asks glibc")
def test_with_pytorch_its_libraries_take_no_leave() -> None:
    done = _run("torch")
    assert done.returncode == 2
    assert "nothing-like-it" in done.stderr
    assert done.stdout.splitlines() == ["thread", "registered"]


@pytest.mark.skipif(sys.platform != "linux", reason="asks glibc")
def test_without_it_a_program_ends_as_ever() -> None:
    done = _run("nothing")
    assert done.returncode < 0
    assert "nothing-like-it" in done.stderr
    assert done.stdout.splitlines() == ["thread", "registered"]
