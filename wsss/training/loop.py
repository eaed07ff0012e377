"""The one training loop: CAM, IRNet and DeepLab trainings differ only in their task.

A task owns its networks, optimisers and losses; the loop owns order, seeds, steps, schedule,
checkpoints, signals, metrics and progress. Several processes may run it together
(`wsss.training.distributed`); the first of them writes.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn

from wsss.data.loader import EpochDataset, batches, steps_per_epoch
from wsss.errors import UserError
from wsss.runtime.compute import Compute
from wsss.runtime.memory import keep_freed_memory
from wsss.runtime.processes import Processes, joined
from wsss.training.batchnorm import learns, synchronise_batchnorm
from wsss.training.checkpoint import load_checkpoint, save_checkpoint
from wsss.training.descent import NonFiniteStep, take_step
from wsss.training.distributed import Split, equalise, images_each
from wsss.training.out_of_memory import out_of_memory
from wsss.training.pictures import TrainingPictures
from wsss.training.reporting import Reporter
from wsss.training.schedule import Schedule, apply_factor, poly
from wsss.training.step import Plan, StepContext, TrainingTask

CHECKPOINT_FILE = "checkpoint.pt"


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
def _stop_signals(processes: Processes) -> Iterator[Callable[[], int | None]]:
    """Note signals that ask to stop instead of dying, so that the step in hand can be saved.

    Processes of one training learn of it together, after the same step, whichever was told. One
    whose launcher is gone takes that for SIGTERM: nobody else would end it.
    """
    received: list[int] = []
    parent = os.getppid()

    def note(number: int, frame: FrameType | None) -> None:
        received.append(number)
        if number == signal.SIGINT:  # who presses Ctrl-C again does not want to wait
            signal.signal(signal.SIGINT, signal.default_int_handler)

    def first() -> int | None:
        number = received[0] if received else 0
        if processes.size > 1 and os.getppid() != parent:
            number = number or signal.SIGTERM
        return processes.largest(number) or None

    asking = (signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP, signal.SIGINT)
    # Who has a signal ignored, as nohup does, wants it ignored.
    watched = [each for each in asking if signal.getsignal(each) != signal.SIG_IGN]
    try:
        before = {number: signal.signal(number, note) for number in watched}
    except ValueError:  # not the main thread: signals are not ours to handle
        yield first
        return
    try:
        yield first
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _to_device(batch: dict[str, Any], device: torch.device) -> dict[str, Any]:
    return {
        key: value.to(device, non_blocking=True) if isinstance(value, Tensor) else value
        for key, value in batch.items()
    }


class _NonFiniteGuard:
    """Lets single steps without finite loss and gradients pass, and stops at too many in a row."""

    def __init__(self, limit: int, plan: Plan) -> None:
        self._limit, self._plan, self._in_a_row = limit, plan, 0

    def step(
        self, task: TrainingTask, batch: dict[str, Any], context: StepContext
    ) -> Mapping[str, Tensor | float]:
        try:
            values = take_step(task, batch, context)
        except torch.OutOfMemoryError as error:
            raise out_of_memory(error, self._plan, context.step, batch) from error
        except NonFiniteStep as error:
            self._in_a_row += 1
            if self._plan.split.processes.is_main:
                print(f"step {context.step}: {error}; step not taken", file=sys.stderr, flush=True)
            if self._in_a_row >= self._limit:
                raise UserError(
                    f"{self._in_a_row} steps in a row without finite loss and gradients",
                    where=f"{self._plan.description}, step {context.step}",
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
    stage: str,
    description: str,
    pictures: TrainingPictures | None = None,
    lr_power: float = 0.9,
    schedule: Schedule | Mapping[str, Schedule] | None = None,
    log_every: int = 10,
    max_non_finite: int = 10,
) -> TrainingSummary:
    """Run `task` over `dataset`, resuming from `work_dir` where a checkpoint is found.

    Args:
        task: Networks, optimisers and losses; already on the device.
        dataset: Images; each is loaded with a generator of (seed, epoch, name).
        epochs: Passes over the images; a last incomplete batch of each is left out.
        batch_size: Images a step, in all processes together.
        seed: Decides order, augmentation, and every draw of a step.
        compute: Device, workers, time between checkpoints.
        work_dir: Checkpoint, metrics.jsonl and TensorBoard events.
        identity: What makes this training this one (settings, classes, images); a checkpoint
            with another identity is refused.
        stage: What TensorBoard groups this training's curves under, e.g. "cam".
        description: For progress lines, e.g. "train CAM (acr)".
        pictures: To show in TensorBoard after every epoch.
        lr_power: Power of the poly schedule over all steps.
        schedule: Factor on the learning rate from (step, total_steps), in place of poly; or one
            for each optimiser's name, where those without one keep poly.
        log_every: Steps between metrics lines.
        max_non_finite: Steps in a row without finite loss and gradients after which training stops.

    Raises:
        UserError: Too few images for a batch, a batch that cannot be dealt out as asked for, a
            foreign checkpoint, a diverged training, or another process is gone.
        SystemExit: SIGTERM or SIGUSR1 arrived; the checkpoint is written.
    """
    device = compute.torch_device()
    modules, optimizers = task.modules, task.optimizers
    if device.type == "cpu":
        keep_freed_memory()
        _lighten(modules.values())
    per_epoch = steps_per_epoch(len(dataset.names), batch_size)
    total = epochs * per_epoch
    identity = {**identity, "seed": seed, "batch_size": batch_size, "total_steps": total}
    checkpoint = work_dir / CHECKPOINT_FILE
    split = Split(Processes.here(), compute.micro_batch)
    _check_parts(split, images_each(batch_size, split.processes), modules)

    def save(done: int) -> None:
        if split.processes.is_main:
            save_checkpoint(
                checkpoint, identity=identity, step=done, modules=modules, optimizers=optimizers
            )

    # Joined first: the one that holds the lock on the output may wait for who wrote there last.
    with joined(device) as processes:
        plan = Plan(
            description=description,
            epochs=epochs,
            batch_size=batch_size,
            per_epoch=per_epoch,
            seed=seed,
            start=load_checkpoint(
                checkpoint, identity=identity, modules=modules, optimizers=optimizers
            ),
            log_every=log_every,
            factors=_factors(optimizers, schedule, lr_power),
            split=split,
        )
        if processes.size > 1:
            _start_alike(processes, plan.start, checkpoint, modules)
        loader = batches(
            dataset,
            batch_size=batch_size,
            seed=seed,
            start=plan.start,
            stop=total,
            workers=compute.workers,
            share=(processes.rank, processes.size),
            pin_memory=device.type == "cuda",
        )
        guard = _NonFiniteGuard(max_non_finite, plan)
        reporter = Reporter(plan, work_dir, stage=stage, optimizers=optimizers, pictures=pictures)
        saved_at = time.monotonic()
        try:
            with _stop_signals(processes) as stop_signal:
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
                    due = time.monotonic() - saved_at > 60 * compute.checkpoint_minutes
                    if done < total and (due or number is not None):
                        save(done)
                        saved_at = time.monotonic()
                    if done < total and number is not None:
                        name = signal.Signals(number).name
                        reporter.say(
                            f"{name}: saved at step {done} of {total}; the next start goes on there"
                        )
                        # All wait for the first: a launcher kills who is left, saving or not, soon
                        # after one has ended.
                        processes.largest(done)
                        raise SystemExit(128 + number)
        finally:
            reporter.close()
    return TrainingSummary(steps=total, epochs=epochs, images=len(dataset.names))


def _lighten(modules: Iterable[nn.Module]) -> None:
    # Here, as what it needs is dear to import and a GPU has no use for it.
    from wsss.models.lean_training import lighten

    for module in modules:
        lighten(module)


def _check_parts(split: Split, images: int, modules: Mapping[str, nn.Module]) -> None:
    """Refuse parts of a batch where BatchNorm needs all of it at once."""
    if len(split.parts(images)) > 1 and learns(modules.values()):
        raise UserError(
            f"{images} images are to go through the networks {split.micro_batch} at a time, and "
            "their BatchNorm learns from all of them at once",
            where="compute.micro_batch",
            expected=f"{images} or more (or null), unless all BatchNorm is frozen",
            fix="leave it away and use more GPUs (compute.gpus), or lower batch_size, or set "
            "freeze_batchnorm, for DeepLab together with head.name v2",
        )


def _start_alike(
    processes: Processes, start: int, checkpoint: Path, modules: Mapping[str, nn.Module]
) -> None:
    """Make all processes begin with the same state, at the same step."""
    if processes.largest(start) != -processes.largest(-start):
        raise UserError(
            f"process {processes.rank} of {processes.size} would go on at step {start}, and others "
            "at another",
            where=checkpoint,
            expected="one checkpoint that all processes see",
            fix="put the work folder where all nodes share it",
        )
    equalise(processes, modules)
    for module in modules.values():
        synchronise_batchnorm(module)


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
    """Remove the checkpoint once the model is written: nothing is left to resume.

    One process of a training does that, the one that wrote the model.
    """
    (work_dir / CHECKPOINT_FILE).unlink(missing_ok=True)
