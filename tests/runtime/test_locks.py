"""Locks on outputs, between processes of their own."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from conftest import REPOSITORY

from wsss.errors import UserError
from wsss.runtime import locks
from wsss.runtime.locks import lock_file, output_lock

# Holds the lock until its standard input ends, or for ever with a child that outlives it.
HOLDER = """
import os, subprocess, sys
from wsss.runtime.locks import output_lock
with output_lock(sys.argv[1], "cam", wait_s=float(sys.argv[2])):
    child = subprocess.Popen(["sleep", "60"]) if sys.argv[3] == "child" else None
    if os.fork() == 0:  # as the helper processes of a data loader are
        os.close(1)
        sys.stdin.read()
        os._exit(0)
    print("held", child.pid if child else 0, flush=True)
    sys.stdin.read()
    os.wait()
"""


@contextmanager
def holder(
    output: Path, *, wait_s: float = 0, child: bool = False
) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(output), str(wait_s), "child" if child else "alone"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=REPOSITORY,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def told(process: subprocess.Popen[str]) -> int:
    """Wait until the lock is held; return the child's process id."""
    assert process.stdout is not None
    words = process.stdout.readline().split()
    assert words and words[0] == "held", process.stderr.read() if process.stderr else ""
    return int(words[1])


def test_a_second_process_is_refused_and_told_who_holds_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "run" / "cams.h5"
    with holder(output) as first:
        told(first)
        start = time.monotonic()
        with (
            pytest.raises(UserError, match="is writing this output") as refusal,
            output_lock(output, "export", wait_s=0.5),
        ):
            pytest.fail("two processes hold the lock")
        assert 0.5 <= time.monotonic() - start < 20
        text = str(refusal.value)
        for words in (
            *(f"process {first.pid} on {socket.gethostname()}", "wsss cam", "since 20"),
            *(str(output), f"kill {first.pid}", "wait until it has finished"),
        ):
            assert words in text
        # The refused one says at once why nothing happens.
        assert f"process {first.pid}" in capsys.readouterr().err
        # Another output of the same folder is free, and so is a reader.
        with output_lock(tmp_path / "run" / "walked.h5", "pseudo-labels", wait_s=0):
            pass
        first.communicate("")
    assert list(output.parent.iterdir()) == []


def test_one_on_another_machine_is_told_how_to_end(tmp_path: Path) -> None:
    output = tmp_path / "cams.h5"

    def refusal(**known: str | int) -> str:
        lock_file(output).write_text(json.dumps({"pid": 7, "host": "node7", **known}))
        with (
            pytest.raises(UserError) as error,
            output_lock(output, "export", wait_s=0),
        ):
            pytest.fail("two processes hold the lock")
        return str(error.value.fix)

    with holder(output) as first:
        told(first)
        assert "ssh node7 kill 7" in refusal() and f"rm {lock_file(output)}" in refusal()
        assert "scancel 42" in refusal(job="42")
        assert "rm " not in refusal(host=socket.gethostname(), job="42")
        # A clone of this machine, which is reached by the same name.
        clone = f"{socket.gethostname()} 0badcafe pid:[4026531836]"
        assert f"ssh {socket.gethostname()} kill 7" in refusal(host=clone)
        # Nor must what is in the file make sense.
        for text in ("{", "[" * 5000):
            lock_file(output).write_text(text)
            with (
                pytest.raises(UserError, match="another process is writing"),
                output_lock(output, "export", wait_s=0),
            ):
                pytest.fail("two processes hold the lock")


def test_one_that_waits_goes_on_when_the_other_ends(tmp_path: Path) -> None:
    output = tmp_path / "cams.h5"
    with holder(output) as first:
        told(first)
        with holder(output, wait_s=60) as second, holder(output) as third:
            third_out, third_err = third.communicate(timeout=60)
            assert third_out == "" and "is writing this output" in third_err
            assert second.poll() is None
            first.communicate("")
            told(second)
            # It holds the file that is there now, not the one its predecessor removed.
            with (
                pytest.raises(UserError, match=f"process {second.pid} on"),
                output_lock(output, "export", wait_s=0),
            ):
                pytest.fail("two processes hold the lock")
            second.communicate("")
    assert list(tmp_path.iterdir()) == []


def test_a_killed_process_leaves_nothing_that_holds(tmp_path: Path) -> None:
    output = tmp_path / "cams.h5"
    with holder(output, child=True) as first:
        child = told(first)
        try:
            first.send_signal(signal.SIGKILL)
            first.wait()
            # Its file is there, and its children live; neither counts.
            assert lock_file(output).exists()
            os.kill(child, 0)
            with output_lock(output, "export", wait_s=0):
                assert f'"pid": {os.getpid()}' in lock_file(output).read_text()
        finally:
            os.kill(child, signal.SIGKILL)
    assert list(tmp_path.iterdir()) == []


def test_an_error_frees_it(tmp_path: Path) -> None:
    output = tmp_path / "cams.h5"
    with pytest.raises(ZeroDivisionError), output_lock(output, "export"):
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


def test_a_file_system_without_locks_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "lockf", refuse)
    with output_lock(tmp_path / "cams.h5", "export"):
        assert "has no locks" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("")
    with (
        pytest.raises(UserError, match="cannot make the file that guards"),
        output_lock(tmp_path / "run" / "cams.h5", "export"),
    ):
        pytest.fail("nothing guards this")


def test_a_stage_takes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from wsss.cli import main

    monkeypatch.setattr(locks, "WAIT_S", 0.2)
    output = tmp_path / "miou.csv"
    with holder(output) as first:
        told(first)
        assert (
            main(["collect", "--scores", str(tmp_path / "none.csv"), "--output", str(output)]) == 2
        )
        error = capsys.readouterr().err
        assert f"wsss collect: process {first.pid} on" in error and f"kill {first.pid}" in error
    # Free again, it gets as far as its own error.
    assert main(["collect", "--scores", str(tmp_path / "none.csv"), "--output", str(output)]) == 2
    assert "is writing this output" not in capsys.readouterr().err
