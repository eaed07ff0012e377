"""A program that holds PyTorch ends without its libraries, and without losing anything of ours."""

from __future__ import annotations

import subprocess
import sys

import pytest

# A C library that ends the process by a signal when it is to clean up; what Python does at
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
{before}
sys.exit(wsss.cli.program())
"""


def _run(held: str, before: str = "") -> subprocess.CompletedProcess[str]:
    program = PROGRAM.replace("{before}", before)
    words = [sys.executable, "-c", program, held, "status", "nothing-like-it"]
    return subprocess.run(words, capture_output=True, text=True, check=False)


@pytest.mark.skipif(sys.platform != "linux", reason="asks glibc")
def test_with_pytorch_its_libraries_do_not_clean_up() -> None:
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


@pytest.mark.skipif(sys.platform != "linux", reason="asks glibc")
@pytest.mark.parametrize(
    "before",
    [
        *("sys.settrace(lambda *_: None)", "sys.setprofile(lambda *_: None)"),
        "import os; os.environ['PYTHONINSPECT'] = '1'",
    ],
)
def test_who_watches_sees_the_end(before: str) -> None:
    assert _run("torch", before).returncode < 0


@pytest.mark.skipif(sys.platform != "linux", reason="asks glibc")
def test_what_c_has_not_written_yet_is_written() -> None:
    done = _run("torch", "libc.printf(b'of C')")
    assert done.returncode == 2
    assert "of C" in done.stdout
