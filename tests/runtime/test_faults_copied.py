"""Results that were copied from elsewhere, whose times tell nothing."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import pytest
from conftest import Project

TARGET = "results/tiny/irn/labels.sha256"


def copy_with_new_times(source: Path, target: Path) -> None:
    """Copy a folder so that what was made from a file is older than it: the worst order."""
    shutil.copytree(source, target, dirs_exist_ok=True)
    now = time.time()
    paths = sorted(source.rglob("*"), key=lambda path: path.stat().st_mtime, reverse=True)
    for place, path in enumerate(paths):
        moment = now - 1000 + place
        os.utime(target / path.relative_to(source), (moment, moment))


def contents(folder: Path) -> dict[str, bytes]:
    """Return all files by name; the memory of digests is each machine's own."""
    found = {path.relative_to(folder): path for path in folder.rglob("*") if path.is_file()}
    return {
        name.as_posix(): path.read_bytes()
        for name, path in found.items()
        if not any(part.startswith(".") for part in name.parts)
    }


@pytest.mark.slow
def test_copied_results_are_taken_as_they_are(tmp_path: Path) -> None:
    for name in ("origin", "results_alone"):
        (tmp_path / name).mkdir()
    origin = Project(tmp_path / "origin")
    origin.make(TARGET)
    made = contents(origin.folder / "results")

    # The whole project, Snakemake's records with it.
    copy_with_new_times(origin.folder, tmp_path / "whole")
    whole = object.__new__(Project)
    whole.folder = tmp_path / "whole"
    assert whole.planned(TARGET) == {}
    assert contents(whole.folder / "results") == made

    # The results alone, into another copy of the project: it is told that they are current.
    alone = Project(tmp_path / "results_alone")
    copy_with_new_times(origin.folder / "results", alone.folder / "results")
    done = alone.snakemake("--touch", TARGET)
    assert done.returncode == 0, done.stdout
    assert alone.planned(TARGET) == {}
    assert "Nothing to be done" in alone.make(TARGET)
    after = contents(alone.folder / "results")
    for name, content in made.items():
        # The plan is that of the last start.
        assert after[name] == content or name == "tiny/plan.json", name
