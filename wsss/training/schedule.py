"""Learning-rate schedules as pure functions, and their application to optimisers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

from torch.optim import Optimizer

from wsss.errors import UserError

# Factor on the learning rate from (step, total_steps).
Schedule = Callable[[int, int], float]


def poly(step: int, total_steps: int, power: float = 0.9) -> float:
    """Return the factor (1 - step/total)^power on the base learning rate (DeepLab, PAMI 2017)."""
    if total_steps < 1:
        raise UserError(f"a training of {total_steps} steps", expected="at least one step")
    return float(max(0.0, 1.0 - step / total_steps) ** power)


def cosine_learning_rate(
    step: int,
    total_steps: int,
    *,
    warmup_steps: int,
    peak: float,
    final: float = 1e-5,
    start: float = 1e-6,
) -> float:
    """Return the learning rate of a step: warm-up from `start`, then a cosine down to `final`.

    As in DeiT's recipe the cosine runs over all steps, those of the warm-up included, so the peak
    itself is passed over when there is a warm-up. The defaults are MCTformer's.

    Args:
        step: 0 .. total_steps; beyond it the rate stays at `final`.
        total_steps: Length of the schedule.
        warmup_steps: Steps that rise linearly, 0 for none.
        peak: Learning rate that the warm-up aims at.
        final: Learning rate at the end.
        start: Learning rate of step 0 when there is a warm-up.

    Raises:
        UserError: A warm-up that is longer than the schedule, or a `start` or `final` above `peak`.
    """
    if not 0 <= warmup_steps <= total_steps or total_steps < 1:
        raise UserError(
            f"a warm-up of {warmup_steps} steps in a schedule of {total_steps}",
            expected="0 <= warm-up <= schedule, and at least one step",
            fix="train for more epochs or warm up for fewer",
        )
    if max(final, start if warmup_steps else 0.0) > peak:
        raise UserError(
            f"the peak learning rate {peak:g} is below the final ({final:g}) or the warm-up's "
            f"first ({start:g})",
            expected="first <= peak and final <= peak",
            fix="the peak is scaled by batch size / 512: raise it, or lower the other two",
        )
    if step < warmup_steps:
        return start + (peak - start) * step / warmup_steps
    return final + (peak - final) * (1 + math.cos(math.pi * min(step / total_steps, 1.0))) / 2


def apply_factor(optimizers: Iterable[Optimizer], factor: float) -> None:
    """Set every group's learning rate to `factor` times the one it was built with."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group.setdefault("initial_lr", group["lr"])
            group["lr"] = group["initial_lr"] * factor
