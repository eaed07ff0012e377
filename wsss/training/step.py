"""One step of a training: what a task says of it, what it may depend on, what it is called.

A step is one phase or several, each the step of one optimiser down one loss. A task says what the
loss counts of a whole batch, and what a part of the batch adds to it; the parts, the processes, the
gradients and the optimiser's step are the loop's business (`wsss.training.descent`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from wsss.data.loader import random_generator
from wsss.training.distributed import Split
from wsss.training.schedule import Schedule

T = TypeVar("T")


@dataclass(frozen=True)
class Part:
    """Images that go together through the networks.

    Attributes:
        batch: Their rows of the batch.
        share: What part of the whole batch they are, and of its means theirs.
    """

    batch: Mapping[str, Any]
    share: float = 1.0


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

    def parts(self, batch: Mapping[str, Any]) -> list[Part]:
        """Return what of this process's batch goes together through the networks."""
        images = len(batch["image"])
        return [
            Part({key: value[rows] for key, value in batch.items()}, self.split.share(rows, images))
            for rows in self.split.parts(images)
        ]


@dataclass(frozen=True)
class Phase(Generic[T]):
    """One optimiser's step.

    Attributes:
        optimizer: Its name among the task's.
        parts: Of this process's batch.
        losses: From a part, and what `count` gives for the whole batch, to the part's contribution
            to the batch's loss, "total", and to other scalars of interest. The count is None where
            the part is the whole batch.
        count: Of the process's batch, what only the data or the networks decide and the loss is a
            mean over; None: nothing.
        prefix: Of the scalars' names in the log.
        logged: What else to log.
        finish: Called once the step is taken, the same in all processes: from the scalars of the
            whole batch to those to log; None: these themselves.
    """

    optimizer: str
    parts: Sequence[T]
    losses: Callable[[T, Tensor | None], Mapping[str, Tensor]]
    count: Callable[[], Tensor | None] | None = None
    prefix: str = ""
    logged: Mapping[str, float] = field(default_factory=dict)
    finish: Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]] | None = None


class TrainingTask(Protocol):
    """What a stage hands to the loop."""

    @property
    def modules(self) -> Mapping[str, nn.Module]:
        """Everything with state to keep in a checkpoint."""
        ...

    @property
    def optimizers(self) -> Mapping[str, Optimizer]:
        """Optimisers whose learning rates follow the schedule."""
        ...

    def phases(self, batch: Mapping[str, Any], context: StepContext) -> Iterable[Phase[Any]]:
        """Yield the phases of a step, each after the one before it is done."""
        ...


class OnePhaseTask(ABC):
    """Base of the tasks with one network, one optimiser, one loss.

    Attributes:
        modules: For checkpoints.
        optimizers: For the schedule and checkpoints.
    """

    modules: Mapping[str, nn.Module]
    optimizers: Mapping[str, Optimizer]

    @abstractmethod
    def losses(self, part: Part, count: Tensor | None) -> Mapping[str, Tensor]:
        """Return what a part adds to the batch's loss, "total", and to other scalars."""

    def count(self, batch: Mapping[str, Any]) -> Tensor | None:
        """Return what the loss is a mean over, where only the data decide it."""
        return None

    def phases(self, batch: Mapping[str, Any], context: StepContext) -> Iterator[Phase[Part]]:
        """Yield the only phase."""
        (optimizer,) = self.optimizers
        yield Phase(optimizer, context.parts(batch), self.losses, lambda: self.count(batch))


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
