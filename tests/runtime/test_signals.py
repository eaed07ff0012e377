"""Signals that ask a stage to stop: taken where nobody has them ignored, and given back."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from wsss.data.loader import batches
from wsss.files import atomic_file
from wsss.runtime.compute import Compute
from wsss.runtime.heartbeat import heartbeat_file
from wsss.runtime.stage_process import stage_process
from wsss.training.loop import train
from wsss.training.step import OnePhaseTask, Part

STOPPING = (signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)
ASKING = (*STOPPING, signal.SIGINT)
Handlers = dict[signal.Signals, Any]


def handlers() -> Handlers:
    return {number: signal.getsignal(number) for number in ASKING}


@pytest.fixture(autouse=True)
def _as_a_shell_starts_it() -> Iterator[None]:
    before = handlers()
    for number in STOPPING:
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


# ----- any stage


@pytest.mark.parametrize("number", STOPPING)
def test_a_stage_ends_tidily_and_gives_the_signals_back(
    number: signal.Signals, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = handlers()
    with (
        pytest.raises(SystemExit) as stopped,
        stage_process("export", tmp_path / "cams.h5"),
        atomic_file(tmp_path / "cams.h5") as temporary,
    ):
        temporary.write_text("half")
        # Otherwise the signal would end these tests.
        assert callable(signal.getsignal(number))
        os.kill(os.getpid(), number)
    assert stopped.value.code == 128 + number
    assert f"{number.name}: stopped" in capsys.readouterr().err
    assert "stopped" in heartbeat_file(tmp_path / "cams.h5").read_text()
    assert not [path for path in tmp_path.iterdir() if "heartbeat" not in path.name]
    assert handlers() == before


def test_a_stage_that_is_interrupted_says_so(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), stage_process("export", tmp_path / "cams.h5"):
        signal.raise_signal(signal.SIGINT)
    told = json.loads(heartbeat_file(tmp_path / "cams.h5").read_text())
    assert told["state"] == "stopped" and told["message"].startswith("interrupted")


@pytest.mark.parametrize("number", STOPPING)
def test_a_stage_leaves_ignored_what_is_ignored(number: signal.Signals, tmp_path: Path) -> None:
    # As `nohup` starts it.
    signal.signal(number, signal.SIG_IGN)
    with stage_process("export", tmp_path / "cams.h5"):
        assert signal.getsignal(number) == signal.SIG_IGN
        os.kill(os.getpid(), number)
    assert signal.getsignal(number) == signal.SIG_IGN


def test_a_stage_leaves_a_handler_that_is_there(tmp_path: Path) -> None:
    seen: list[int] = []
    signal.signal(signal.SIGUSR1, lambda number, frame: seen.append(number))
    with stage_process("export", tmp_path / "cams.h5"):
        os.kill(os.getpid(), signal.SIGUSR1)
    assert seen == [signal.SIGUSR1]


# ----- a training


class Ones:
    """Eight images of a single one."""

    names = tuple("abcdefgh")

    def load(self, position: int, rng: np.random.Generator) -> dict[str, Any]:
        return {"image": torch.ones(1), "name": self.names[position]}


class Task(OnePhaseTask):
    """A regression in whose second step something happens."""

    def __init__(self, happen: Callable[[], Any]) -> None:
        self.net = nn.Linear(1, 1)
        self.modules = {"net": self.net}
        self.optimizers = {"sgd": torch.optim.SGD(self.net.parameters(), lr=0.1)}
        self.steps = 0
        self._happen = happen

    def losses(self, part: Part, count: Tensor | None) -> dict[str, Tensor]:
        self.steps += 1
        if self.steps == 2:
            self._happen()
        return {"total": self.net(part.batch["image"]).mean()}


def run(folder: Path, happen: Callable[[], Any]) -> Task:
    task = Task(happen)
    train(
        task,
        Ones(),
        epochs=2,
        batch_size=2,
        seed=0,
        compute=Compute(device="cpu", threads=1, workers=0),
        work_dir=folder,
        identity={},
        stage="test",
        description="test",
    )
    return task


def send(number: signal.Signals) -> None:
    # Otherwise the signal would end these tests.
    assert callable(signal.getsignal(number))
    assert signal.getsignal(number) is not signal.default_int_handler
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", ASKING)
def test_a_training_saves_and_gives_the_signals_back(
    number: signal.Signals, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = handlers()
    with pytest.raises(SystemExit) as stopped:
        run(tmp_path, lambda: send(number))
    assert stopped.value.code == 128 + number
    assert f"{number.name}: saved at step 2 of 8" in capsys.readouterr().err
    assert torch.load(tmp_path / "checkpoint.pt", weights_only=True)["step"] == 2
    assert handlers() == before


@pytest.mark.parametrize("number", ASKING)
def test_a_training_leaves_ignored_what_is_ignored(number: signal.Signals, tmp_path: Path) -> None:
    signal.signal(number, signal.SIG_IGN)
    during: list[Handlers] = []
    task = run(tmp_path, lambda: (during.append(handlers()), os.kill(os.getpid(), number)))
    assert task.steps == 8
    assert {each for each in ASKING if during[0][each] == signal.SIG_IGN} == {number}
    assert signal.getsignal(number) == signal.SIG_IGN


def test_who_presses_ctrl_c_twice_does_not_wait(tmp_path: Path) -> None:
    def twice() -> None:
        send(signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        os.kill(os.getpid(), signal.SIGINT)

    before = handlers()
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, twice)
    assert not (tmp_path / "checkpoint.pt").exists()
    assert handlers() == before


class Ignored(Ones):
    """Images that say which signals the process that loads them ignores."""

    def load(self, position: int, rng: np.random.Generator) -> dict[str, Any]:
        return {"ignored": torch.tensor([signal.getsignal(n) == signal.SIG_IGN for n in ASKING])}


def test_a_process_that_loads_images_outlives_them_all() -> None:
    loaded = batches(Ignored(), batch_size=2, seed=0, start=0, stop=2, workers=1)
    assert all(bool(batch["ignored"].all()) for batch in loaded)
    # Where this process loads them itself, the training's handlers stay.
    alone = batches(Ignored(), batch_size=2, seed=0, start=0, stop=2, workers=0)
    assert not any(bool(batch["ignored"].any()) for batch in alone)
