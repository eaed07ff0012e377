"""One step of a training: what it is called, what it may depend on, how it fails."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch

from wsss.data.loader import random_generator
from wsss.training.distributed import Split
from wsss.training.schedule import Schedule


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
        split: How the batch is dealt out over processes and parts; by default it is whole.
    """

    device: torch.device
    epoch: int
    step: int
    total_steps: int
    generator: torch.Generator
    rng: np.random.Generator
    split: Split = field(default_factory=Split)


@dataclass(frozen=True)
class Plan:
    """The steps of one training and what each is called.

    Attributes:
        description: For progress lines.
        epochs: Passes over the images.
        batch_size: Images of a step, in all processes together.
        per_epoch: Steps of a pass.
        seed: Decides every draw.
        start: The step to go on with.
        log_every: Steps between metrics lines.
        factors: Schedule by the optimiser's name.
        split: How a batch is dealt out.
    """

    description: str
    epochs: int
    batch_size: int
    per_epoch: int
    seed: int
    start: int
    log_every: int
    factors: Mapping[str, Schedule]
    split: Split

    @property
    def total(self) -> int:
        """Steps of the whole training."""
        return self.epochs * self.per_epoch

    def context(self, step: int, device: torch.device) -> StepContext:
        """Return a step's context, and seed the global generator that dropout draws from.

        Every draw is a function of (seed, step), so a restart needs no saved random state. Dropout
        draws for a process's own images: each process from a seed of its own.
        """
        rng = random_generator(self.seed, "step", step)
        step_seed = int(rng.integers(2**62))
        rank = self.split.processes.rank
        own = random_generator(self.seed, "step", step, "process", rank) if rank else None
        torch.manual_seed(step_seed if own is None else int(own.integers(2**62)))
        return StepContext(
            device=device,
            epoch=step // self.per_epoch,
            step=step,
            total_steps=self.total,
            generator=torch.Generator().manual_seed(step_seed),
            rng=rng,
            split=self.split,
        )
