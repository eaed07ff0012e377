"""An exponential moving average of weights, kept beside a training and used in their place.

Tarvainen and Valpola (NeurIPS 2017): the average of the weights along the way is less noisy than
the last ones, most of all where labels are.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from wsss.training.step import Phase, StepContext, TrainingTask

N = TypeVar("N", bound=nn.Module)


def average_decay(decay: float, updates: int) -> float:
    """Return the decay of the next update: lower at first, so that the start is soon forgotten.

    Args:
        decay: The largest, in 0..1.
        updates: Updates already done.
    """
    return min(decay, (1 + updates) / (10 + updates))


class WeightAverage(nn.Module, Generic[N]):
    """The average of a network's parameters and buffers.

    Parameters that do not learn, as those of a frozen backbone, are the network's own, not copies.

    Args:
        network: On its device, with its initial weights, those frozen that stay so.
        decay: Of the average, a step; in 0..1.

    Attributes:
        network: With the averaged weights; in eval mode, without gradient.
        updates: Steps averaged; int64 scalar.
    """

    def __init__(self, network: N, decay: float) -> None:
        super().__init__()
        self._decay = decay
        frozen = {name: p for name, p in network.named_parameters() if not p.requires_grad}
        self._frozen = frozenset(frozen)
        shared = {id(parameter): parameter for parameter in frozen.values()}
        self.network: N = copy.deepcopy(network, shared).eval().requires_grad_(False)
        self.updates: Tensor
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))
        self._done: int | None = None
        self.training = False

    def train(self, mode: bool = True) -> WeightAverage[N]:
        """Stay in eval mode."""
        return self

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """Take the weights of `network`, after a step, into the average."""
        if self._done is None:  # after a restart the checkpoint's; read once, as a GPU would wait
            self._done = int(self.updates)
        weight = 1 - average_decay(self._decay, self._done)
        theirs = network.state_dict()
        for name, ours in self.network.state_dict().items():
            if name in self._frozen:
                continue
            if ours.is_floating_point():
                ours.lerp_(theirs[name], weight)
            else:
                ours.copy_(theirs[name])
        self.updates += 1
        self._done += 1


class AveragedTask(Generic[N]):
    """Any training, whose result is the average of a network's weights.

    Args:
        task: The training; it goes on from the last weights, not from the average.
        network: What it trains.
        decay: Of the average, a step.

    Attributes:
        result: The network with the averaged weights.
        modules: For checkpoints, the average among them.
        optimizers: The training's.
    """

    def __init__(self, task: TrainingTask, network: N, decay: float) -> None:
        self._task, self._trained = task, network
        self._average = WeightAverage(network, decay)
        self.result = self._average.network
        self.modules: Mapping[str, nn.Module] = {**task.modules, "average": self._average}
        self.optimizers: Mapping[str, Optimizer] = task.optimizers

    def phases(self, batch: Mapping[str, Any], context: StepContext) -> Iterator[Phase[Any]]:
        """Yield the training's phases; once the last one is done, average."""
        yield from self._task.phases(batch, context)
        self._average.update(self._trained)
