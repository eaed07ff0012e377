"""A run keeps to the number of threads that it began with."""

from __future__ import annotations

from pathlib import Path

import pytest

from wsss.errors import UserError
from wsss.project.threads import record_threads, threads_of


def test_a_run_goes_on_with_what_it_began_with(tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert threads_of(run, "auto", here=8) == 8
    assert not run.exists()  # a plan writes nothing
    record_threads(run, 8)
    (run / "config").mkdir()
    assert threads_of(run, "auto", here=4) == 8
    # A number is the user's word, and what the run goes on with afterwards.
    assert threads_of(run, 3, here=4) == 3
    record_threads(run, 3)
    assert threads_of(run, "auto", here=4) == 3


def test_a_run_from_before_there_were_records(tmp_path: Path) -> None:
    (tmp_path / "config").mkdir()
    assert threads_of(tmp_path, "auto", here=8) == 2
    assert threads_of(tmp_path, 1, here=8) == 1


def test_what_is_recorded_already_is_not_written_again(tmp_path: Path) -> None:
    record_threads(tmp_path, 2)
    before = (tmp_path / "threads.json").stat()
    record_threads(tmp_path, 2)
    assert (tmp_path / "threads.json").stat().st_ino == before.st_ino


@pytest.mark.parametrize("text", ["{", "[]", '{"threads": 0}', '{"threads": "all"}'])
def test_a_damaged_record(tmp_path: Path, text: str) -> None:
    (tmp_path / "threads.json").write_text(text)
    with pytest.raises(UserError, match=r"threads\.json") as caught:
        threads_of(tmp_path, "auto", here=8)
    # What it says to do helps.
    assert "set compute.threads" in str(caught.value)
    record_threads(tmp_path, threads_of(tmp_path, 3, here=8))
    assert threads_of(tmp_path, "auto", here=8) == 3
