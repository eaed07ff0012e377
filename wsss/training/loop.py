"""The one training loop: CAM, IRNet and DeepLab trainings differ only in their task.

A task owns its networks and optimisers and takes one step; the loop owns order, seeds, schedule,
checkpoints, signals, metrics and progress.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from wsss.data.loader import EpochDataset, batches, random_generator, steps_per_epoch
from wsss.errors import UserError
from wsss.training.checkpoint import load_checkpoint, save_checkpoint
from wsss.training.compute import Compute
from wsss.training.metrics import MetricsLog
from wsss.training.progress import Progress
from wsss.training.schedule import apply_factor, poly

CHECKPOINT_FILE = "checkpoint.pt"


class NonFiniteLoss(Exception):
    """Raised by a task's step, before its optimiser step, when a loss is not finite."""


@dataclass(frozen=True)
class StepContext:
    """What a step may depend on besides its batch.

    Attributes:
        device: Where the networks and the batch are.
        epoch: Epoch of this step, from 0.
        step: Step of the whole training, from 0.
        total_steps: Steps of the whole training.
        generator: CPU generator, a function of (seed, step).
        rng: NumPy generator, a function of (seed, step).
    """

    device: torch.device
    epoch: int
    step: int
    total_steps: int
    generator: torch.Generator
    rng: np.random.Generator


class TrainingTask(Protocol):
    """What a stage hands to `train`."""

    @property
    def modules(self) -> Mapping[str, nn.Module]:
        """Everything with state to keep in a checkpoint."""
        ...

    @property
    def optimizers(self) -> Mapping[str, Optimizer]:
        """Optimisers whose learning rates follow the schedule."""
        ...

    def step(self, batch: dict[str, Any], context: StepContext) -> Mapping[str, Tensor | float]:
        """Take one training step and return scalars to log, "loss" among them.

        Raises:
            NonFiniteLoss: Before any optimiser step with a loss that is not finite.
        """
        ...


@dataclass(frozen=True)
class TrainingSummary:
    """What a training did, for the model's metadata.

    Attributes:
        steps: Steps in all, skipped ones included.
        epochs: Passes over the images.
        images: Images a pass.
    """

    steps: int
    epochs: int
    images: int


@contextmanager
def _stop_signals() -> Iterator[Callable[[], int | None]]:
    """Note SIGTERM and SIGUSR1 instead of dying, so that the step in hand can be saved."""
    received: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        received.append(number)

    watched = (signal.SIGTERM, signal.SIGUSR1)
    try:
        before = {number: signal.signal(number, note) for number in watched}
    except ValueError:  # not the main thread: signals are not ours to handle
        yield lambda: None
        return
    try:
        yield lambda: received[0] if received else None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _to_device(batch: dict[str, Any], device: torch.device) -> dict[str, Any]:
    return {
        key: value.to(device, non_blocking=True) if isinstance(value, Tensor) else value
        for key, value in batch.items()
    }


class _Averages:
    """Means of logged scalars since the last report, kept as tensors so that no step waits."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor | float] = {}
        self._count = 0

    def add(self, values: Mapping[str, Tensor | float]) -> None:
        for key, value in values.items():
            detached = value.detach() if isinstance(value, Tensor) else value
            self._sums[key] = self._sums.get(key, 0.0) + detached
        self._count += 1

    def take(self) -> dict[str, float]:
        means = {key: float(value) / max(1, self._count) for key, value in self._sums.items()}
        self._sums, self._count = {}, 0
        return means


def train(
    task: TrainingTask,
    dataset: EpochDataset,
    *,
    epochs: int,
    batch_size: int,
    seed: int,
    compute: Compute,
    work_dir: Path,
    identity: Mapping[str, Any],
    description: str,
    lr_power: float = 0.9,
    schedule: Callable[[int, int], float] | None = None,
    checkpoint_minutes: float = 5.0,
    log_every: int = 10,
    max_non_finite: int = 10,
) -> TrainingSummary:
    """Run `task` over `dataset`, resuming from `work_dir` where a checkpoint is found.

    Args:
        task: Networks, optimisers and the step; already on the device.
        dataset: Images; each is loaded with a generator of (seed, epoch, name).
        epochs: Passes over the images; a last incomplete batch of each is left out.
        batch_size: Images a step.
        seed: Decides order, augmentation, and every draw of a step.
        compute: Device, workers.
        work_dir: Checkpoint, metrics.jsonl, TensorBoard events and status.json.
        identity: What makes this training this one (settings, classes, images); a checkpoint
            with another identity is refused.
        description: For progress lines, e.g. "train CAM (acr)".
        lr_power: Power of the poly schedule over all steps.
        schedule: Factor on the learning rate from (step, total_steps), in place of poly.
        checkpoint_minutes: Time between checkpoints.
        log_every: Steps between metrics lines.
        max_non_finite: Steps in a row without a finite loss after which training stops.

    Raises:
        UserError: Too few images for a batch, a foreign checkpoint, or a diverged training.
        SystemExit: SIGTERM or SIGUSR1 arrived; the checkpoint is written.
    """
    device = compute.torch_device()
    per_epoch = steps_per_epoch(len(dataset.names), batch_size)
    total = epochs * per_epoch
    identity = {**identity, "seed": seed, "batch_size": batch_size, "total_steps": total}
    checkpoint = work_dir / CHECKPOINT_FILE
    kept = {"modules": task.modules, "optimizers": task.optimizers}
    start = load_checkpoint(checkpoint, identity=identity, device=device, **kept)  # type: ignore[arg-type]
    factor = schedule or (lambda step, steps: poly(step, steps, lr_power))
    loader = batches(
        dataset,
        batch_size=batch_size,
        seed=seed,
        start=start,
        stop=total,
        workers=compute.workers,
        pin_memory=device.type == "cuda",
    )
    log = MetricsLog(work_dir, start)
    reporter = Progress(total, description, "step", initial=start, items_per_unit=batch_size)
    averages, bad_steps = _Averages(), 0
    waited, since, last_saved = 0.0, time.monotonic(), time.monotonic()

    def save(step: int) -> None:
        save_checkpoint(checkpoint, identity=identity, step=step, **kept)  # type: ignore[arg-type]

    try:
        with _stop_signals() as stop_signal:
            iterator = iter(loader)
            for step in range(start, total):
                asked = time.monotonic()
                batch = _to_device(next(iterator), device)
                waited += time.monotonic() - asked
                epoch = step // per_epoch
                apply_factor(task.optimizers.values(), factor(step, total))
                # Dropout and the like draw from the global generator: seeding it a step makes
                # every draw a function of (seed, step), on whatever side of a restart.
                step_rng = random_generator(seed, "step", step)
                step_seed = int(step_rng.integers(2**62))
                torch.manual_seed(step_seed)
                context = StepContext(
                    device=device,
                    epoch=epoch,
                    step=step,
                    total_steps=total,
                    generator=torch.Generator().manual_seed(step_seed),
                    rng=step_rng,
                )
                try:
                    averages.add(task.step(batch, context))
                    bad_steps = 0
                except NonFiniteLoss as error:
                    bad_steps += 1
                    print(f"step {step}: {error}; step not taken", flush=True)
                    if bad_steps >= max_non_finite:
                        raise UserError(
                            f"{bad_steps} steps in a row without a finite loss",
                            where=f"{description}, step {step}",
                            fix="lower the learning rate, or use precision float32",
                        ) from None
                done = step + 1
                note = ""
                if done % log_every == 0 or done == total:
                    values = averages.take()
                    elapsed = time.monotonic() - since
                    since = time.monotonic()
                    speed = {
                        "images_per_s": round(reporter.rate * batch_size, 2),
                        "data_wait_share": round(waited / max(1e-9, elapsed), 4),
                    }
                    waited = 0.0
                    where = {"epoch": epoch, "lr_factor": factor(step, total)}
                    log.write(done, {**where, **values, **speed})
                    log.heartbeat(
                        {
                            "stage": description,
                            "step": done,
                            "total_steps": total,
                            "epochs": epochs,
                            "eta_s": round(reporter.eta_s),
                            **where,
                            **values,
                            **speed,
                        }
                    )
                    shown = values.get("loss")
                    note = f"epoch {epoch + 1}/{epochs}"
                    note += f", loss {shown:.4f}" if shown is not None else ""
                reporter.update(note=note)
                number = stop_signal()
                if number is not None and done < total:
                    save(done)
                    print(f"{signal.Signals(number).name}: saved at step {done}", flush=True)
                    raise SystemExit(128 + number)
                if time.monotonic() - last_saved > 60 * checkpoint_minutes and done < total:
                    save(done)
                    last_saved = time.monotonic()
    finally:
        reporter.close()
        log.close()
    return TrainingSummary(steps=total, epochs=epochs, images=len(dataset.names))


def finish(work_dir: Path) -> None:
    """Remove the checkpoint once the model is written: nothing is left to resume."""
    (work_dir / CHECKPOINT_FILE).unlink(missing_ok=True)
