"""What a training comes to by the formulas alone, in float64, and how a stage starts one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from wsss.data.loader import epoch_order


class Started(Exception):
    """Raised in the place of a training, once all that it was called with is noted."""


def started(
    monkeypatch: pytest.MonkeyPatch, module: str, start: Callable[[], None]
) -> SimpleNamespace:
    """Return what a stage hands to the training loop: `task`, `images` and the keywords."""
    seen: dict[str, Any] = {}

    def note(task: Any, images: Any, **others: Any) -> None:
        seen.update(others, task=task, images=images)
        raise Started

    with monkeypatch.context() as patch:
        patch.setattr(f"{module}.train", note)
        with pytest.raises(Started):
            start()
    return SimpleNamespace(**seen)


def descend(
    network: nn.Module,
    loss: Callable[[Mapping[str, Tensor], np.ndarray], Tensor],
    *,
    count: int,
    settings: Mapping[str, Any],
    rates: Mapping[str, float],
) -> dict[str, Tensor]:
    """Return the float64 weights after stochastic gradient descent with momentum.

    Args:
        network: With its initial weights.
        loss: From the parameters, and positions of the images of a batch.
        count: Images.
        settings: `epochs`, `batch_size`, `seed`, `momentum`, `lr_power`, `ema`, and the
            `weight_decay` by parameter.
        rates: Parameter -> its learning rate at the first step.
    """
    weights = {name: p.detach().double().clone() for name, p in network.named_parameters()}
    average = {name: value.clone() for name, value in weights.items()}
    velocity = {name: torch.zeros_like(value) for name, value in weights.items()}
    each = count // settings["batch_size"]
    total = settings["epochs"] * each
    for step in range(total):
        order = epoch_order(settings["seed"], step // each, count)
        first = step % each * settings["batch_size"]
        leaves = {name: value.requires_grad_() for name, value in weights.items()}
        value = loss(leaves, order[first : first + settings["batch_size"]])
        gradients = torch.autograd.grad(value, list(leaves.values()))
        factor = (1 - step / total) ** settings["lr_power"]
        decay = min(settings["ema"], (1 + step) / (10 + step))
        with torch.no_grad():
            for (name, weight), gradient in zip(leaves.items(), gradients, strict=True):
                push = gradient + settings["weight_decay"][name] * weight
                velocity[name] = settings["momentum"] * velocity[name] + push
                weights[name] = (weight - rates[name] * factor * velocity[name]).detach()
                average[name] = decay * average[name] + (1 - decay) * weights[name]
    return average


def distance(left: Mapping[str, Tensor], right: Mapping[str, Tensor]) -> float:
    """Return the largest difference between weights of the same names."""
    assert left.keys() == right.keys()
    return max(float((left[name].double() - right[name]).abs().max()) for name in right)


def check_crops(
    images: Any, position: int, *, side_px: int, crop_px: int, scales: tuple[float, float]
) -> None:
    """Check that a square picture, unlabelled at its upper left, is resized as set, never mirrored.

    Args:
        images: What the training is handed.
        position: The picture's position among them.
        side_px: Its side.
        crop_px: Side of the crops, which all of it is in, so that its size and place can be seen.
        scales: Smallest and largest factor of the resizing, below 1 and above 2.
    """
    sides = []
    for seed in range(12):
        crop = images.load(position, np.random.default_rng(seed))
        assert crop["valid"].shape == (1, crop_px, crop_px)
        rows, columns = crop["valid"][0].nonzero().T
        side = round(side_px * np.random.default_rng(seed).uniform(*scales))
        assert (rows.max() - rows.min() + 1, columns.max() - columns.min() + 1) == (side, side)
        # What is unlabelled stays at the left.
        inside = crop["target"][rows.min(), columns.min() : columns.max() + 1]
        assert inside[0] == 255 and inside[-1] != 255
        sides.append(side)
    assert min(sides) < side_px and max(sides) > 2 * side_px
