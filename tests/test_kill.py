"""A run that is killed again and again ends with the bytes of one that is left alone."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from conftest import Project

MIOU = "results/tiny/miou.csv"
# Not results: they hold times, or tell of the process that wrote them.
NO_RESULT = re.compile(r"(^|/)(work|logs|benchmarks)/|(^|/)plan\.json$|\.snakemake_timestamp$")
HEARTBEAT = re.compile(r"(^|/)\.[^/]+\.heartbeat\.json$")


def results(folder: Path) -> dict[str, bytes]:
    """Return the bytes of every result, hidden files included, as those may be leftovers."""
    files = {
        path.relative_to(folder).as_posix(): path
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    kept = {name: path for name, path in files.items() if not NO_RESULT.search(name)}
    return {name: path.read_bytes() for name, path in kept.items() if not HEARTBEAT.search(name)}


def assert_same(found: dict[str, bytes], expected: dict[str, bytes]) -> None:
    assert found.keys() == expected.keys()
    assert [name for name in expected if found[name] != expected[name]] == []


def with_more_steps(project: Project) -> None:
    """Let the trainings take steps enough to be killed between."""
    path = project.folder / "config.local.yaml"
    values = yaml.safe_load(path.read_text())
    values["compute"]["checkpoint_minutes"] = 0
    for stage in ("cam", "irn", "segmentation"):
        values["runs"]["tiny"][stage]["epochs"] = 6
    path.write_text(yaml.safe_dump(values))


@pytest.fixture(scope="module")
def stages(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, dict[str, int]]]:
    """All stages, undisturbed into one folder and killed into another, and how often."""
    project = Project(tmp_path_factory.mktemp("stages"))
    with_more_steps(project)
    done = subprocess.run(
        [sys.executable, str(Path(__file__).parent / "killed_stages.py"), "20260101", "3", "8"],
        cwd=project.folder,
        env={**os.environ, "PYTHONPATH": str(project.folder), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return project.folder, json.loads(done.stdout)


@pytest.mark.slow
def test_stages_killed_at_random_end_with_the_same_bytes(
    stages: tuple[Path, dict[str, dict[str, int]]],
) -> None:
    folder, counted = stages
    assert sum(counted["random"].values()) + sum(counted["rename"].values()) >= 50, counted
    for name, kills in counted["random"].items():
        assert kills >= 1, f"{name} was never killed at random: {counted}"
    for name in ("train-cam", "train-irn", "train-segmentation"):
        assert counted["resumed"][name] >= 1, f"{name} never went on from a checkpoint: {counted}"
    # Nothing is left of what was killed: no temporary file, no lock.
    assert_same(results(folder / "killed"), results(folder / "quiet"))
