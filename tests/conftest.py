"""What all tests share: few threads, real data where there are, a tiny data set, a project copy."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np
import pytest
from PIL import Image
from warm_programs import warm_program, warm_programs

from wsss.runtime.openmp import wait_politely

REPOSITORY = Path(__file__).parent.parent
# Test tensors are tiny: threads only get in each other's way, above all beside pytest -n, where
# those that wait spin on a core that the tests of the other process want: a minute became two.
THREADS = 1
# Where a test asks for more. Before PyTorch is imported, as the command line does it.
wait_politely()


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Pass over files without slow tests where only those are wanted: importing all takes long."""
    if config.option.markexpr != "slow" or collection_path.suffix != ".py":
        return None
    return "mark.slow" not in collection_path.read_text() or None


@pytest.fixture(autouse=True, scope="session")
def _few_threads() -> None:
    import torch

    torch.set_num_threads(THREADS)


@pytest.fixture(autouse=True)
def _threads_as_before() -> Iterator[None]:
    """A stage that a test runs sets the number of threads for its process, which is the tests'."""
    import torch

    yield
    torch.set_num_threads(THREADS)


@pytest.fixture(autouse=True, scope="session")
def _cache_of_its_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What is kept between runs lies in a folder of these tests, empty at their start."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WSSS_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def skip_or_fail(need: str, reason: str) -> None:
    """Skip, or fail where `WSSS_REQUIRE` lists `need`, as continuous integration does."""
    required = os.environ.get("WSSS_REQUIRE", "").split(",")
    if need in required:
        pytest.fail(f"WSSS_REQUIRE names '{need}', but {reason}", pytrace=False)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def voc_root() -> Path:
    """Folder of real PASCAL VOC images."""
    text = os.environ.get("WSSS_VOC_ROOT", "")
    if not text or not Path(text).is_dir():
        skip_or_fail("voc", "WSSS_VOC_ROOT names no folder with PASCAL VOC")
    return Path(text)


def write_tiny_data(root: Path, *, train: int = 8, val: int = 3) -> None:
    """Write a plain-folder data set: 64 px pictures of a red and a blue thing, with masks."""
    rng = np.random.default_rng(0)
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True)
    lines = ["image,tags,set"]
    for number in range(train + val):
        width, height = (64, 56) if number % 2 else (60, 64)
        picture = rng.integers(60, 120, (height, width, 3), dtype=np.uint8)
        mask = np.zeros((height, width), np.uint8)
        tags = ["blue"] if number % 3 == 0 else ["red"] if number % 3 == 1 else ["blue", "red"]
        for tag in tags:
            label = 1 if tag == "blue" else 2
            top, left = rng.integers(4, 30, 2)
            colour = (30, 40, 220) if label == 1 else (220, 40, 30)
            picture[top : top + 20, left : left + 20] = colour
            mask[top : top + 20, left : left + 20] = label
        # What the second thing covers is the second's: a picture keeps both only where both show.
        tags = sorted(("blue", "red")[label - 1] for label in set(mask.ravel().tolist()) - {0})
        name = f"image_{number:02d}"
        Image.fromarray(picture).save(root / "images" / f"{name}.png")
        Image.fromarray(mask).save(root / "masks" / f"{name}.png")
        lines.append(f"{name}.png,{';'.join(tags)},{'train' if number < train else 'val'}")
    (root / "labels.csv").write_text("\n".join(lines) + "\n")


TINY_RUN = """
compute: {device: cpu, threads: 1, workers: 0}
roots: {tiny: data/tiny}
runs:
  tiny:
    root: tiny
    index: {format: folder}
    cam:
      backbone: {name: test_efficientnet, weights: none, output_stride: 16}
      epochs: 1
      batch_size: 4
      crop_px: 64
      long_side_min_px: 56
      long_side_max_px: 72
      acr: {decode_px: 32, decoder_depth: 3, decoder_width: 4, feature_channels: [4, 4, 4]}
    export: {scales: [1.0]}
    labels: {foreground_threshold: 0.3, background_threshold: 0.05, crf: {iterations: 2}}
    irn:
      backbone: {name: test_efficientnet, weights: none, output_stride: 16}
      epochs: 1
      batch_size: 4
      crop_px: 48
      radius: 4
    pseudo_labels: {radius: 3, steps: 8, background: 0.25}
    segmentation:
      backbone: {name: test_efficientnet, weights: none, output_stride: 16}
      head: {channels: 8, low_level_channels: 4}
      epochs: 1
      batch_size: 4
      crop_px: 64
    prediction: {scales: [1.0], mirror: false, crf_settings: {iterations: 2}}
    evaluation: {cam_background: 0.28, panel_count: 2, sweep_step: 0.1}
  tiny-cam: {extends: tiny, stop_after: cam, cam: {method: cam}}
  tiny-gt: {extends: tiny, segmentation: {labels: ground_truth}}
"""


def _ended(process: subprocess.Popen[str]) -> subprocess.CompletedProcess[str]:
    """Wait for a process; return its status and what it printed."""
    with process:
        try:
            output, _ = process.communicate(timeout=580)
        except BaseException:
            process.kill()
            raise
    return subprocess.CompletedProcess(process.args, process.returncode, output)


class Project:
    """A copy of the workflow and the library in a folder of its own, with the run `tiny`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("Snakefile", "config.yaml"):
            shutil.copy(REPOSITORY / name, folder / name)
        being_compiled = shutil.ignore_patterns("*.pyc.*")
        for name in ("workflow", "profiles", "envs", "wsss"):
            # With what is compiled, which Python looks at only where it fits the source.
            shutil.copytree(REPOSITORY / name, folder / name, ignore=being_compiled)
        (folder / "config.local.yaml").write_text(TINY_RUN)
        write_tiny_data(folder / "data" / "tiny")

    def start(
        self, *command: str, output: int | IO[str] = subprocess.PIPE
    ) -> subprocess.Popen[str]:
        """Start a command of the environment in the project, its own copy of the library first."""
        program = Path(sys.executable).parent / command[0]
        return self._start(str(program), *command[1:], output=output)

    def _start(
        self, *command: str, output: int | IO[str] = subprocess.PIPE, **variables: str
    ) -> subprocess.Popen[str]:
        environment = {"PYTHONPATH": str(self.folder), "OMP_NUM_THREADS": "1", **variables}
        return subprocess.Popen(
            command,
            cwd=self.folder,
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command to its end; see `start`."""
        return _ended(self.start(*command))

    def snakemake(self, *arguments: str, by_itself: str = "") -> subprocess.CompletedProcess[str]:
        """Run Snakemake on two cores; see `warm_programs`, also for the stages `by_itself`."""
        command = (warm_program("snakemake"), "--cores", "2", *arguments)
        variables = {"PATH": warm_programs(), "START_BY_ITSELF": by_itself}
        return _ended(self._start(*command, **variables))

    def make(self, *targets: str, by_itself: str = "") -> str:
        """Build targets and return what was printed; a failure fails the test."""
        done = self.snakemake(*targets, by_itself=by_itself)
        assert done.returncode == 0, done.stdout
        return done.stdout

    def planned(self, *arguments: str) -> dict[str, int]:
        """Return the rules that a dry run would run, each with its number of jobs.

        A rule that makes several tables or figures of a run counts once for each of them:
        `score_maps_cam`, `figures_segmentation`.
        """
        done = self.snakemake("--dry-run", *arguments)
        assert done.returncode == 0, done.stdout
        lines = iter(done.stdout.splitlines())
        jobs: dict[str, int] = {}
        for line in lines:
            if line.startswith("Job stats:"):
                next(lines)
                next(lines)
                for entry in lines:
                    if entry.startswith("total") or not entry.strip():
                        break
                    rule, count = entry.split()
                    jobs[rule] = int(count)
                break
        several = re.compile(
            r"^rule (\w+):$.*?^    wildcards: .*\b(?:table|what)=(\w+)$", re.M | re.S
        )
        for block in done.stdout.split("\n\n"):
            found = several.search(block)
            if found is not None:
                jobs.pop(found[1], None)
                name = f"{found[1]}_{found[2]}"
                jobs[name] = jobs.get(name, 0) + 1
        return jobs


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    """A fresh project with nothing made yet."""
    yield Project(tmp_path)
