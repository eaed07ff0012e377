"""The shared loop: same bytes whatever the workers, the kills and the restarts."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from wsss.errors import UserError
from wsss.runtime.compute import Compute
from wsss.training.descent import NonFiniteStep, take_step
from wsss.training.loop import train
from wsss.training.step import OnePhaseTask, Part, Phase, StepContext

CPU = torch.device("cpu")


class Numbers:
    """Twelve "images": four noisy numbers each."""

    def __init__(self, count: int = 12) -> None:
        self.names = [f"n{i:02d}" for i in range(count)]

    def load(self, position: int, rng: np.random.Generator) -> dict[str, Any]:
        noise = torch.from_numpy(rng.standard_normal(4).astype(np.float32))
        return {"image": noise + position / 10, "name": self.names[position]}


class Task(OnePhaseTask):
    """Regression through dropout, so that the step's own draws matter too."""

    def __init__(self, stop_at: int | None = None, kill: bool = False, nan_from: int = 10**9):
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 1))
        self.sgd = torch.optim.SGD(self.net.parameters(), lr=0.01, momentum=0.9)
        self.modules = {"net": self.net}
        self.optimizers = {"sgd": self.sgd}
        self.seen: list[tuple[int, tuple[str, ...]]] = []
        self.lrs: list[float] = []
        self._stop_at, self._kill, self._nan_from = stop_at, kill, nan_from

    def phases(self, batch: Mapping[str, Any], context: StepContext) -> Iterator[Phase[Part]]:
        self.seen.append((context.step, tuple(batch["name"])))
        self.lrs.append(self.sgd.param_groups[0]["lr"])
        if context.step == self._stop_at:
            if self._kill:
                raise KeyboardInterrupt
            os.kill(os.getpid(), signal.SIGTERM)
        target = torch.randn(len(batch["name"]), 1, generator=context.generator)
        spoilt = context.step >= self._nan_from
        return super().phases({**batch, "target": target * (torch.nan if spoilt else 1)}, context)

    def losses(self, part: Part, count: Tensor | None) -> dict[str, Tensor]:
        return {"total": (self.net(part.batch["image"]) - part.batch["target"]).square().mean()}


def run(task: Task, folder: Path, *, workers: int = 0, minutes: float = 5.0, **identity: Any):
    return train(
        task,
        Numbers(),
        epochs=3,
        batch_size=4,
        seed=7,
        compute=Compute(device="cpu", threads=1, workers=workers, checkpoint_minutes=minutes),
        work_dir=folder,
        identity={"config": "a", **identity},
        stage="test",
        description="test",
        log_every=1,
        max_non_finite=2,
    )


def weights(task: Task) -> bytes:
    assert all(bool(p.isfinite().all()) for p in task.net.parameters())
    return b"".join(p.detach().numpy().tobytes() for p in task.net.parameters())


def test_every_image_once_an_epoch_in_another_order(tmp_path: Path) -> None:
    task = Task()
    summary = run(task, tmp_path)
    assert (summary.steps, summary.images) == (9, 12)
    orders = [
        [name for step, names in task.seen if step // 3 == epoch for name in names]
        for epoch in range(3)
    ]
    assert all(sorted(order) == Numbers().names for order in orders)
    assert orders[0] != orders[1] != orders[2]
    assert task.lrs == pytest.approx([0.01 * (1 - s / 9) ** 0.9 for s in range(9)])


def test_workers_do_not_change_the_bytes(tmp_path: Path) -> None:
    alone, helped = Task(), Task()
    run(alone, tmp_path / "a", workers=0)
    run(helped, tmp_path / "b", workers=2)
    assert weights(alone) == weights(helped)
    assert alone.seen == helped.seen


def test_sigterm_saves_and_the_restart_ends_with_the_same_bytes(tmp_path: Path) -> None:
    undisturbed = Task()
    run(undisturbed, tmp_path / "a")
    with pytest.raises(SystemExit) as stopped:
        run(Task(stop_at=4), tmp_path / "b")
    assert stopped.value.code == 128 + signal.SIGTERM
    resumed = Task()
    run(resumed, tmp_path / "b")
    assert resumed.seen[0][0] == 5
    assert weights(resumed) == weights(undisturbed)
    losses = [
        [
            json.loads(line)["loss"]
            for line in (tmp_path / side / "metrics.jsonl").read_text().splitlines()
        ]
        for side in "ab"
    ]
    assert losses[0] == losses[1]
    assert len(losses[0]) == 9


def test_a_signal_to_all_processes_of_the_job_still_saves(tmp_path: Path) -> None:
    class Scheduler(Task):
        """Schedulers signal every process of a job, loader workers too."""

        def phases(self, batch: Mapping[str, Any], context: StepContext) -> Iterator[Phase[Part]]:
            if context.step == 2:
                for worker in multiprocessing.active_children():
                    assert worker.pid is not None
                    os.kill(worker.pid, signal.SIGTERM)
                time.sleep(0.5)
                os.kill(os.getpid(), signal.SIGTERM)
            return super().phases(batch, context)

    with pytest.raises(SystemExit):
        run(Scheduler(), tmp_path / "a", workers=2)
    resumed, undisturbed = Task(), Task()
    run(resumed, tmp_path / "a")
    run(undisturbed, tmp_path / "b")
    assert resumed.seen[0][0] == 3
    assert weights(resumed) == weights(undisturbed)


@pytest.mark.setting("compute.checkpoint_minutes")
def test_a_kill_after_a_checkpoint_resumes_there(tmp_path: Path) -> None:
    undisturbed = Task()
    run(undisturbed, tmp_path / "a")
    with pytest.raises(KeyboardInterrupt):
        run(Task(stop_at=6, kill=True), tmp_path / "b", minutes=0.0)
    resumed = Task()
    run(resumed, tmp_path / "b")
    assert resumed.seen[0][0] == 6
    assert weights(resumed) == weights(undisturbed)


def test_a_checkpoint_of_other_settings_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        run(Task(stop_at=4), tmp_path)
    with pytest.raises(UserError, match="config was 'a', is 'b'"):
        run(Task(), tmp_path, config="b")


def test_a_damaged_checkpoint_is_named(tmp_path: Path) -> None:
    (tmp_path / "checkpoint.pt").write_bytes(b"not a checkpoint")
    with pytest.raises(UserError, match="cannot be read"):
        run(Task(), tmp_path)


def test_a_step_not_taken_leaves_no_trace(tmp_path: Path) -> None:
    task = Task(nan_from=3)
    task.net.insert(1, nn.BatchNorm1d(8))
    batch = {"image": torch.full((2, 4), torch.nan), "name": ["a", "b"]}
    step = StepContext(CPU, 0, 0, 9, torch.Generator(), np.random.default_rng(0))
    before = {key: value.clone() for key, value in task.net.state_dict().items()}
    with pytest.raises(NonFiniteStep, match="the loss of the sgd is nan"):
        take_step(task, batch, step)
    assert all(torch.equal(before[key], value) for key, value in task.net.state_dict().items())
    assert int(task.net[1].num_batches_tracked) == 0


def test_a_diverged_training_stops(tmp_path: Path) -> None:
    task = Task(nan_from=3)
    with pytest.raises(UserError, match="2 steps in a row"):
        run(task, tmp_path)
    assert len(task.seen) == 5


def test_too_few_images_for_a_batch(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot fill a batch"):
        train(
            Task(),
            Numbers(3),
            epochs=1,
            batch_size=4,
            seed=0,
            compute=Compute(device="cpu", threads=1, workers=0),
            work_dir=tmp_path,
            identity={},
            stage="test",
            description="test",
        )


def test_a_checkpoint_that_is_not_what_was_written_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        run(Task(stop_at=4), tmp_path)
    path = tmp_path / "checkpoint.pt"
    sound = path.read_bytes()
    # A bit in the stored momentum, as a disk would flip it: PyTorch itself does not look.
    state = torch.load(path, weights_only=True)
    momentum = state["optimizers"]["sgd"]["state"][0]["momentum_buffer"].numpy().tobytes()
    damaged = bytearray(sound)
    damaged[sound.index(momentum)] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(UserError, match="cannot be read"):
        run(Task(), tmp_path)
    # In memory, before it was written: the archive's own checksums are right then.
    state["modules"]["net"]["0.weight"][0, 0] += 2**-20
    torch.save(state, path)
    with pytest.raises(UserError, match="damaged: it does not hold what was written"):
        run(Task(), tmp_path)
    del state["sha256"]
    torch.save(state, path)
    with pytest.raises(UserError, match="damaged"):
        run(Task(), tmp_path)
    path.write_bytes(sound)
    run(Task(), tmp_path)


def test_any_damage_to_a_checkpoint_is_one_message(tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        run(Task(stop_at=4), tmp_path)
    path = tmp_path / "checkpoint.pt"
    sound = path.read_bytes()
    for length in range(0, len(sound), 997):
        path.write_bytes(sound[:length])
        with pytest.raises(UserError, match="cannot be read"):
            run(Task(), tmp_path)
    for other in (3, {"step": 1}, {"identity": 3}, []):
        torch.save(other, path)
        with pytest.raises(UserError, match="no checkpoint"):
            run(Task(), tmp_path)
