"""Trainings under torchrun: the command of a rule, signals to the launcher, a process that dies."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from conftest import Project
from segmentation_helpers import make_data, tiny_config

from wsss.errors import UserError
from wsss.files import write_json
from wsss.models.config import BackboneConfig
from wsss.project.local import LocalCompute
from wsss.runtime.compute import FeatureCompute
from wsss.runtime.settings import replace, to_dict
from wsss.segmentation.training import train_segmentation

CONFIG = replace(
    tiny_config(),
    backbone=BackboneConfig(name="test_efficientnet", weights="none"),
    epochs=30,
)


def words(folder: Path) -> list[str]:
    """Return the options of the training's command."""
    write_json(folder / "settings.json", to_dict(CONFIG))
    paths = {
        "config": folder / "settings.json",
        "labels": folder / "pseudo",
        "index": folder / "index.csv",
        "root": folder / "data",
        "output": folder / "model.safetensors",
        "work-dir": folder / "work",
    }
    options = [word for name, path in paths.items() for word in (f"--{name}", str(path))]
    return ["segmentation", *options, "--device", "cpu", "--threads", "1", "--workers", "0"]


@contextmanager
def launched(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Start the training as a rule does with two processes; wait until it has taken ten steps."""
    program = LocalCompute(device="cpu", gpus=2).training_program(threads=1)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    process = subprocess.Popen(
        ["bash", "-c", f"exec env {program} {shlex.join(words(folder))}"],
        env={**os.environ, "PATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        metrics, deadline = folder / "work" / "metrics.jsonl", time.monotonic() + 500
        while not (metrics.exists() and metrics.read_text()):
            assert process.poll() is None, process.communicate()[0]
            assert time.monotonic() < deadline
            time.sleep(0.02)
        yield process
    finally:
        process.kill()
        process.wait()


def children(process: subprocess.Popen[str]) -> dict[str, int]:
    """Return the processes that a launcher started, by their RANK."""
    text = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
    found = {}
    for pid in map(int, text.split()):
        variables = Path(f"/proc/{pid}/environ").read_text().split("\0")
        found.update({v.partition("=")[2]: pid for v in variables if v.startswith("RANK=")})
    return found


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, pytest.param(signal.SIGUSR1, marks=pytest.mark.slow)]
)
def test_a_signal_to_the_launcher_saves_once(tmp_path: Path, number: signal.Signals) -> None:
    make_data(tmp_path)
    with launched(tmp_path) as process:
        process.send_signal(number)
        printed = process.communicate(timeout=300)[0]
    assert process.returncode != 0
    assert printed.count(f"{number.name}: saved at step") == 1, printed
    assert (tmp_path / "work" / "checkpoint.pt").exists()
    assert not (tmp_path / "model.safetensors").exists()
    if number == signal.SIGUSR1:
        return
    threads = torch.get_num_threads()
    try:
        train_segmentation(
            config=CONFIG,
            labels=tmp_path / "pseudo",
            masks=None,
            index=tmp_path / "index.csv",
            root=tmp_path / "data",
            output=tmp_path / "model.safetensors",
            work_dir=tmp_path / "work",
            compute=FeatureCompute(device="cpu", threads=1, workers=0),
            weights_file=None,
        )
    finally:
        torch.set_num_threads(threads)
    lines = (tmp_path / "work" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == list(range(10, 91, 10))
    assert (tmp_path / "model.safetensors").exists()


def test_a_process_that_dies_takes_the_others_along(tmp_path: Path) -> None:
    make_data(tmp_path)
    with launched(tmp_path) as process:
        os.kill(children(process)["1"], signal.SIGKILL)
        printed = process.communicate(timeout=300)[0]
    assert process.returncode != 0
    assert "another process of this training is gone" in printed, printed
    assert not (tmp_path / "model.safetensors").exists()


@pytest.mark.slow
def test_a_rule_trains_with_two_processes(project: Project) -> None:
    target = "results/tiny-cam/cam/model.safetensors"
    done = project.snakemake(target, "--config", "compute={device: cpu, gpus: 2}")
    assert done.returncode == 0, done.stdout
    assert (project.folder / target).exists()
    assert not list((project.folder / "results/tiny-cam/cam/work").glob("checkpoint*"))


def test_impossible_numbers_of_gpus() -> None:
    assert LocalCompute().training_program(threads=2) == "wsss"
    with pytest.raises(UserError, match="gpus is 0"):
        LocalCompute(gpus=0)
    with pytest.raises(UserError, match="with device 'cuda:1'"):
        LocalCompute(gpus=2, device="cuda:1")
