"""What is being written is found by its writer's name, and is whole after a power cut."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from wsss.errors import UserError
from wsss.files import atomic_directory, atomic_file, temporaries
from wsss.files.temporaries import remove_leftovers, temporary_sibling
from wsss.runtime.heartbeat import process_identity
from wsss.runtime.locks import lock_file, output_lock
from wsss.runtime.stage_process import stage_process


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """What is synced and renamed, in order, by name."""
    seen: list[tuple[str, str]] = []
    fsync, replace = os.fsync, os.replace

    def note_sync(descriptor: int) -> None:
        seen.append(("sync", Path(f"/proc/self/fd/{descriptor}").readlink().name))
        fsync(descriptor)

    def note_rename(source: Any, target: Any) -> None:
        seen.append(("rename", Path(target).name))
        replace(source, target)

    monkeypatch.setattr(os, "fsync", note_sync)
    monkeypatch.setattr(os, "replace", note_rename)
    return seen


def test_a_folder_is_renamed_once_all_in_it_is_on_the_disk(
    tmp_path: Path, calls: list[tuple[str, str]]
) -> None:
    with atomic_directory(tmp_path / "run" / "labels") as folder:
        (folder / "deep").mkdir()
        for name in ("a.png", "b.png", "deep/c.png"):
            (folder / name).write_bytes(b"x")
    assert calls[0] == ("sync", tmp_path.name)  # which holds the new name `run`
    rename = calls.index(("rename", "labels"))
    before = [name for call, name in calls[1:rename] if call == "sync"]
    assert set(before[:4]) == {"a.png", "b.png", "c.png", ".wsss-folder.json"}
    assert before[4:] == ["deep", folder.name]
    assert calls[rename + 1 :] == [("sync", "run")]


def test_a_file_too(tmp_path: Path, calls: list[tuple[str, str]]) -> None:
    with atomic_file(tmp_path / "cams.h5") as temporary:
        temporary.write_bytes(b"x")
    names = [("sync", temporary.name), ("rename", "cams.h5"), ("sync", tmp_path.name)]
    assert calls == names


def test_folders_that_cannot_be_synced_stop_nothing_and_a_broken_disk_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, works in ((errno.EINVAL, True), (errno.EIO, False)):

        def refuse(descriptor: int, number: int = number) -> None:
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(os, "fsync", refuse)
        if works:
            with atomic_directory(tmp_path / "a") as folder:
                (folder / "x").write_text("x")
            assert (tmp_path / "a" / "x").exists()
            continue
        with (
            pytest.raises(UserError, match="Input/output error"),
            atomic_directory(tmp_path / "b") as folder,
        ):
            (folder / "x").write_text("x")
        assert [path.name for path in tmp_path.iterdir()] == ["a"]


def left(output: Path, writer: str, ending: str = "tmp") -> Path:
    path = output.parent / f".{output.name}.{writer}.{ending}"
    path.write_text("half")
    return path


@pytest.fixture
def gone() -> int:
    """The number of a process that is no more."""
    with subprocess.Popen(["true"]) as process:
        process.wait()
    return process.pid


def test_only_what_surely_nobody_writes_is_removed(
    tmp_path: Path, gone: int, capsys: pytest.CaptureFixture[str]
) -> None:
    output, here = tmp_path / "cams.h5", temporaries._host()
    with subprocess.Popen(["sleep", "60"]) as living:
        files = {
            "dead": left(output, f"{here}-{gone}"),
            "dead, old": left(output, f"{here}-{gone}", "old"),
            "alive": left(output, f"{here}-{living.pid}"),
            "elsewhere": left(output, f"node17-0123abcd-{gone}"),
            "earlier version": left(output, f"{gone}"),
            "somebody's": left(output, "mine"),
            "another's": left(tmp_path / "cams.h5.x", f"{here}-{gone}"),
        }
        remove_leftovers(output, alone=False)
        stay = {"alive", "elsewhere", "earlier version", "somebody's", "another's"}
        assert {what for what, path in files.items() if path.exists()} == stay
        told = capsys.readouterr().err
        assert all(str(files[what]) in told for what in ("alive", "elsewhere", "earlier version"))
        # With the lock on the output nobody else writes it, whatever the names say.
        remove_leftovers(output)
        remain = {"somebody's", "another's"}
        assert {what for what, path in files.items() if path.exists()} == remain
        living.kill()
    assert capsys.readouterr().err == ""


@pytest.mark.skipif(not Path("/proc/self/comm").exists(), reason="no /proc")
def test_a_process_may_be_called_by_any_bytes() -> None:
    comm = Path("/proc/self/comm")
    before = comm.read_bytes()
    try:
        # What the system leaves of a longer name ends after 15 bytes, within a letter or not.
        comm.write_bytes(b"xxxxxxxxxxxxxx\xc3")
        assert not temporaries._is_gone(os.getpid())
        assert (process_identity(os.getpid()) or "").isdigit()
    finally:
        comm.write_bytes(before)


def test_a_name_says_machine_and_process(tmp_path: Path) -> None:
    name = temporary_sibling(tmp_path / "cams.h5").name
    assert name == f".cams.h5.{temporaries._host()}-{os.getpid()}.tmp"
    assert temporaries._WRITER.fullmatch(name.removeprefix(".cams.h5.").removesuffix(".tmp"))


WRITER = """
import sys
from pathlib import Path
from wsss.files import atomic_file
with atomic_file(Path(sys.argv[1])) as temporary:
    temporary.write_text("first")
    print(temporary, flush=True)
    sys.stdin.read()
"""


def test_without_locks_a_second_start_leaves_the_first_ones_work_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "lockf", refuse)
    output = tmp_path / "table.csv"
    command = [sys.executable, "-c", WRITER, str(output)]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **pipes) as first:
        assert first.stdout is not None
        temporary = Path(first.stdout.readline().strip())
        for _ in range(2):
            with stage_process("collect", output):
                assert temporary.read_text() == "first"
        told = capsys.readouterr().err
        assert told.count("has no locks") == 1
        assert f"{temporary}: somebody may be writing this" in told
        first.communicate("")
    assert output.read_text() == "first"
    assert not lock_file(output).exists()


def test_the_lock_says_whether_it_is_one(tmp_path: Path) -> None:
    with output_lock(tmp_path / "cams.h5", "export") as locked:
        assert locked is True


def test_one_file_that_cannot_go_keeps_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "predictions"
    folder.mkdir()
    for number in range(5):
        (folder / f"{number}.png").touch()
    unlink, refused = os.unlink, []

    def refuse_first(name: str, **place: Any) -> None:
        if not refused:
            refused.append(name)
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM), name)
        unlink(name, **place)

    monkeypatch.setattr(os, "unlink", refuse_first)
    temporaries.remove(folder)
    assert [path.name for path in folder.iterdir()] == refused
