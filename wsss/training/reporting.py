"""What a training tells while it runs: progress, metrics lines, heartbeat."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from wsss.runtime.progress import Progress
from wsss.training.metrics import MetricsLog
from wsss.training.pictures import TrainingPictures
from wsss.training.step import Plan

# Of a training with more epochs, as few pictures make them, not every one is shown: each costs time
# and room, and TensorBoard's slider has ten of them anyway.
MOST_SHOWN = 50


COUNTED = frozenset({"skipped_steps"})
"""Scalars of which their sum since the last report is told, not their mean."""


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
        means = {
            key: float(value) / (1 if key in COUNTED else self._counts[key])
            for key, value in self._sums.items()
        }
        self._sums, self._counts = {}, {}
        return means


class Reporter:
    """Progress, metrics lines and heartbeat of one training, from the first of its processes.

    Args:
        plan: What is reported on.
        work_dir: Where the metrics go.
        stage: What TensorBoard groups them under, such as `cam`.
        optimizers: Of the training, whose learning rate is told.
        pictures: To show after every epoch, or about `MOST_SHOWN` times of more epochs.
    """

    def __init__(
        self,
        plan: Plan,
        work_dir: Path,
        *,
        stage: str,
        optimizers: Mapping[str, Optimizer],
        pictures: TrainingPictures | None = None,
    ) -> None:
        self._plan, self._optimizers, self._pictures = plan, optimizers, pictures
        self._silent = not plan.split.processes.is_main
        if self._silent:
            return
        self._log = MetricsLog(work_dir, stage, plan.start)
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
        if not self._silent:
            self._waited += seconds

    def add(self, values: Mapping[str, Tensor | float]) -> None:
        """Count one step's scalars."""
        if not self._silent:
            self._averages.add(values)

    def finished(self, step: int) -> None:
        """Tell of `step`, counted from 0, and write the metrics where they are due."""
        if self._silent:
            return
        plan, done = self._plan, step + 1
        note = ""
        if done % plan.log_every == 0 or done == plan.total:
            note = self._write(step)
        self._progress.update(note=note)
        epochs, within = divmod(done, plan.per_epoch)
        every = -(-plan.epochs // MOST_SHOWN)
        if not within and (epochs % every == 0 or done == plan.total):
            self._show(done)

    def _show(self, done: int) -> None:
        if self._pictures is None:
            return
        try:
            self._log.pictures(done, self._pictures.drawn())
        except torch.OutOfMemoryError:
            # A training that fits may not end for what only tells of it.
            self.say("TensorBoard: no room on the GPU for pictures of this training")
            self._pictures = None

    def _write(self, step: int) -> str:
        plan, epoch = self._plan, step // self._plan.per_epoch
        now = time.monotonic()
        optimizer = next(iter(self._optimizers.values()))
        values: dict[str, Any] = {
            "epoch": epoch,
            # Of the first optimiser's first group, the backbone's weights; where others follow
            # another schedule, theirs is known.
            "lr": optimizer.param_groups[0]["lr"],
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

    def say(self, text: str) -> None:
        """Print a line to the log."""
        if not self._silent:
            print(text, file=sys.stderr, flush=True)

    def close(self) -> None:
        """Flush and close."""
        if self._silent:
            return
        self._progress.close()
        self._log.close()
