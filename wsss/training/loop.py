"""The one training loop: CAM, IRNet and DeepLab trainings differ only in their task.

A task owns its networks and optimisers and takes one step; the loop owns order, seeds, schedule,
checkpoints, signals, metrics and progress.
"""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
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
from wsss.training.schedule import Schedule, apply_factor, poly

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
        # Per key: a step that was not taken reports no loss and may not lower its mean.
        self._counts: dict[str, int] = {}

    def add(self, values: Mapping[str, Tensor | float]) -> None:
        for key, value in values.items():
            detached = value.detach() if isinstance(value, Tensor) else value
            self._sums[key] = self._sums.get(key, 0.0) + detached
            self._counts[key] = self._counts.get(key, 0) + 1

    def take(self) -> dict[str, float]:
        means = {key: float(value) / self._counts[key] for key, value in self._sums.items()}
        self._sums, self._counts = {}, {}
        return means


@dataclass(frozen=True)
class _Plan:
    """The steps of one training and what each is called."""

    description: str
    epochs: int
    batch_size: int
    per_epoch: int
    seed: int
    start: int
    log_every: int
    factors: Mapping[str, Schedule]

    @property
    def total(self) -> int:
        return self.epochs * self.per_epoch

    def context(self, step: int, device: torch.device) -> StepContext:
        """Return a step's context, and seed the global generator that dropout draws from.

        Every draw is a function of (seed, step), so a restart needs no saved random state.
        """
        rng = random_generator(self.seed, "step", step)
        step_seed = int(rng.integers(2**62))
        torch.manual_seed(step_seed)
        return StepContext(
            device=device,
            epoch=step // self.per_epoch,
            step=step,
            total_steps=self.total,
            generator=torch.Generator().manual_seed(step_seed),
            rng=rng,
        )


class _Reporter:
    """Progress, metrics lines and heartbeat of one training."""

    def __init__(self, plan: _Plan, work_dir: Path) -> None:
        self._plan = plan
        self._log = MetricsLog(work_dir, plan.start)
        self._progress = Progress(
            plan.total,
            plan.description,
            "step",
            initial=plan.start,
            items_per_unit=plan.batch_size,
        )
        self._averages = _Averages()
        self._waited, self._since = 0.0, time.monotonic()

    def waited(self, seconds: float) -> None:
        """Count time in which the device had no batch."""
        self._waited += seconds

    def add(self, values: Mapping[str, Tensor | float]) -> None:
        """Count one step's scalars."""
        self._averages.add(values)

    def finished(self, step: int) -> None:
        """Tell of `step`, counted from 0, and write the metrics where they are due."""
        plan, done = self._plan, step + 1
        note = ""
        if done % plan.log_every == 0 or done == plan.total:
            note = self._write(step)
        self._progress.update(note=note)

    def _write(self, step: int) -> str:
        plan, epoch = self._plan, step // self._plan.per_epoch
        now = time.monotonic()
        values: dict[str, Any] = {
            "epoch": epoch,
            # Of the first optimiser; where others follow another schedule, theirs is known.
            "lr_factor": next(iter(plan.factors.values()))(step, plan.total),
            **self._averages.take(),
            "images_per_s": round(self._progress.rate * plan.batch_size, 2),
            "data_wait_share": round(self._waited / max(1e-9, now - self._since), 4),
        }
        self._waited, self._since = 0.0, now
        self._log.write(step + 1, values)
        self._log.heartbeat(
            {
                "stage": plan.description,
                "step": step + 1,
                "total_steps": plan.total,
                "epochs": plan.epochs,
                "eta_s": round(self._progress.eta_s),
                **values,
            }
        )
        loss = values.get("loss")
        return f"epoch {epoch + 1}/{plan.epochs}" + ("" if loss is None else f", loss {loss:.4f}")

    def close(self) -> None:
        """Flush and close."""
        self._progress.close()
        self._log.close()


class _NonFiniteGuard:
    """Lets single steps without a finite loss pass, and stops at too many in a row."""

    def __init__(self, limit: int, description: str) -> None:
        self._limit, self._description, self._in_a_row = limit, description, 0

    def step(
        self, task: TrainingTask, batch: dict[str, Any], context: StepContext
    ) -> Mapping[str, Tensor | float]:
        try:
            values = task.step(batch, context)
        except NonFiniteLoss as error:
            self._in_a_row += 1
            print(f"step {context.step}: {error}; step not taken", file=sys.stderr, flush=True)
            if self._in_a_row >= self._limit:
                raise UserError(
                    f"{self._in_a_row} steps in a row without a finite loss",
                    where=f"{self._description}, step {context.step}",
                    fix="lower the learning rate, or use precision float32",
                ) from None
            return {"skipped_steps": 1.0}
        self._in_a_row = 0
        return values


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
    schedule: Schedule | Mapping[str, Schedule] | None = None,
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
        schedule: Factor on the learning rate from (step, total_steps), in place of poly; or one
            for each optimiser's name, where those without one keep poly.
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
    modules, optimizers = task.modules, task.optimizers
    plan = _Plan(
        description=description,
        epochs=epochs,
        batch_size=batch_size,
        per_epoch=per_epoch,
        seed=seed,
        start=load_checkpoint(
            checkpoint, identity=identity, modules=modules, optimizers=optimizers, device=device
        ),
        log_every=log_every,
        factors=_factors(optimizers, schedule, lr_power),
    )
    loader = batches(
        dataset,
        batch_size=batch_size,
        seed=seed,
        start=plan.start,
        stop=total,
        workers=compute.workers,
        pin_memory=device.type == "cuda",
    )

    def save(done: int) -> None:
        save_checkpoint(
            checkpoint, identity=identity, step=done, modules=modules, optimizers=optimizers
        )

    guard = _NonFiniteGuard(max_non_finite, description)
    reporter = _Reporter(plan, work_dir)
    saved_at = time.monotonic()
    try:
        with _stop_signals() as stop_signal:
            iterator = iter(loader)
            for step in range(plan.start, total):
                asked = time.monotonic()
                batch = _to_device(next(iterator), device)
                reporter.waited(time.monotonic() - asked)
                for name, optimizer in optimizers.items():
                    apply_factor([optimizer], plan.factors[name](step, total))
                reporter.add(guard.step(task, batch, plan.context(step, device)))
                reporter.finished(step)
                number = stop_signal()
                done = step + 1
                due = time.monotonic() - saved_at > 60 * checkpoint_minutes
                if done < total and (due or number is not None):
                    save(done)
                    saved_at = time.monotonic()
                if done < total and number is not None:
                    name = signal.Signals(number).name
                    print(f"{name}: saved at step {done}", file=sys.stderr, flush=True)
                    raise SystemExit(128 + number)
    finally:
        reporter.close()
    return TrainingSummary(steps=total, epochs=epochs, images=len(dataset.names))


def _factors(
    names: Iterable[str], schedule: Schedule | Mapping[str, Schedule] | None, lr_power: float
) -> dict[str, Schedule]:
    """Return each optimiser's schedule."""

    def poly_factor(step: int, steps: int) -> float:
        return poly(step, steps, lr_power)

    if callable(schedule):
        return dict.fromkeys(names, schedule)
    own = schedule or {}
    return {name: own.get(name, poly_factor) for name in names}


def finish(work_dir: Path) -> None:
    """Remove the checkpoint once the model is written: nothing is left to resume."""
    (work_dir / CHECKPOINT_FILE).unlink(missing_ok=True)
