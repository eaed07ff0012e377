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
from contextlib import suppress
from pathlib import Path

import pytest
import yaml
from conftest import Project
from warm_programs import warm_programs

from wsss.files.marks import MARK

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
    for stage, epochs in {"cam": 8, "irn": 5, "segmentation": 5}.items():
        values["runs"]["tiny"][stage]["epochs"] = epochs
    path.write_text(yaml.safe_dump(values))


@pytest.fixture(scope="module")
def stages(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, dict[str, int]]]:
    """All stages, undisturbed into one folder and killed into another, and how often."""
    project = Project(tmp_path_factory.mktemp("stages"))
    with_more_steps(project)
    done = subprocess.run(
        [sys.executable, str(Path(__file__).parent / "killed_stages.py"), "20260101", "2", "5"],
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
    assert sum(counted["random"].values()) + sum(counted["rename"].values()) >= 40, counted
    for name, kills in counted["random"].items():
        assert kills >= 1, f"{name} was never killed at random: {counted}"
        assert counted["rename"][name] >= 1, f"{name} was never killed at a rename: {counted}"
    for name in ("cam", "irn", "segmentation"):
        assert counted["resumed"][name] >= 1, f"{name} never went on from a checkpoint: {counted}"
    # Nothing is left of what was killed: no temporary file, no lock.
    assert_same(results(folder / "killed"), results(folder / "quiet"))


class Killed:
    """Snakemake at work on the run, for as long as it is let."""

    def __init__(self, project: Project, log: Path) -> None:
        self._project = project
        self._log = log.open("w")
        self.process = project.start("snakemake", "--cores", "2", MIOU, output=self._log)

    def wait_for(self, output: str, state: str = "running") -> int:
        """Wait until the stage that writes `output` tells of itself; return its process."""
        path = self._project.folder / "results" / "tiny" / output
        heartbeat = path.parent / f".{path.name}.heartbeat.json"
        deadline = time.monotonic() + 300
        while time.monotonic() < deadline:
            if heartbeat.exists():
                told = json.loads(heartbeat.read_text())
                if told["state"] == state and told["time"] > self._started:
                    return int(told["pid"])
            assert self.process.poll() is None, self.output()
            time.sleep(0.005)
        raise AssertionError(f"no {output} in time: {self.output()}")

    def output(self) -> str:
        return Path(self._log.name).read_text()

    def kill(self) -> None:
        """Kill Snakemake itself; what it started goes on without it."""
        self.process.kill()
        self.process.wait()

    def __enter__(self) -> Killed:
        self._started = time.time()
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.kill()
        self._log.close()


@pytest.mark.slow
def test_snakemake_and_its_stages_killed_end_with_the_same_bytes(
    stages: tuple[Path, dict[str, dict[str, int]]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    project = Project(tmp_path)
    shutil.copy(stages[0] / "config.local.yaml", project.folder / "config.local.yaml")
    logs = project.folder / "results" / "tiny" / "logs"

    def assert_locked() -> None:
        second = project.snakemake(MIOU)
        assert second.returncode != 0 and "--unlock" in second.stdout, second.stdout

    # Of the Snakemake that is killed; each starts by itself.
    monkeypatch.setenv("PATH", warm_programs())
    # Snakemake alone; the training it leaves behind still holds its output when the next
    # start comes to it, which waits.
    with Killed(project, tmp_path / "first.log") as first:
        orphan = first.wait_for("cam/model.safetensors")
        os.kill(orphan, signal.SIGSTOP)
        assert_locked()  # two at a time
        first.kill()
    try:
        assert_locked()  # the lock outlives its Snakemake
        assert project.snakemake("--unlock").returncode == 0
        with Killed(project, tmp_path / "second.log") as second:
            log = logs / "cam.log"  # Snakemake removes the earlier one first
            while not log.exists() or "is writing it; waiting" not in log.read_text():
                assert second.process.poll() is None, second.output()
                time.sleep(0.02)
            assert f"process {orphan} " in log.read_text()
            os.kill(orphan, signal.SIGCONT)
            # The stage alone, then: its Snakemake says so and ends.
            os.kill(second.wait_for("irn/model.safetensors"), signal.SIGKILL)
            assert second.process.wait() == 1
            assert "Error in rule irn" in second.output()
    finally:
        with suppress(ProcessLookupError):
            os.kill(orphan, signal.SIGCONT)
    # Both at once, as when a machine goes down.
    with Killed(project, tmp_path / "third.log") as third:
        stage = third.wait_for("segmentation/model.safetensors")
        third.kill()
        os.kill(stage, signal.SIGKILL)
    assert project.snakemake("--unlock").returncode == 0
    project.make(MIOU)
    found = results(project.folder / "results" / "tiny")
    expected = results(stages[0] / "quiet")
    assert_same({name: found.get(name, b"") for name in expected}, expected)
    hidden = [name for name in found if re.search(r"(^|/)\.[^/]*$", name)]
    left = [name for name in hidden if Path(name).name != MARK]
    assert left == [], "temporary files or locks are left"
