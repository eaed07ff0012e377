"""Learning-rate schedules as pure functions, and their application to optimisers."""

from __future__ import annotations

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


def apply_factor(optimizers: Iterable[Optimizer], factor: float) -> None:
    """Set every group's learning rate to `factor` times the one it was built with."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group.setdefault("initial_lr", group["lr"])
            group["lr"] = group["initial_lr"] * factor
