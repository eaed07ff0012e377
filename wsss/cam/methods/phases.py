"""Learning rates of a training in phases: what each network's optimiser follows."""

from __future__ import annotations

from collections.abc import Mapping

from wsss.training.schedule import Schedule, poly


def steps_per_epoch(total_steps: int, epochs: int) -> int:
    """Return the steps of one of `epochs` equal epochs."""
    return max(1, total_steps // epochs)


def restarted(
    epochs: int, *, alone: int, idle: int, joint_factor: float, lr_power: float
) -> Schedule:
    """Return the classifier's schedule: poly while alone, nothing while idle, then poly anew.

    Args:
        epochs: Of the whole training.
        alone: First epochs.
        idle: Epochs after these, in which it does not learn.
        joint_factor: Factor on the learning rate of the second schedule.
        lr_power: Power of both.
    """

    def factor(step: int, total_steps: int) -> float:
        per_epoch = steps_per_epoch(total_steps, epochs)
        first, second = alone * per_epoch, (alone + idle) * per_epoch
        if step < first:
            return poly(step, first, lr_power)
        if step < second:
            return 0.0
        return joint_factor * poly(step - second, total_steps - second, lr_power)

    return factor


def delayed(epochs: int, *, start: int, lr_power: float) -> Schedule:
    """Return the reconstructor's schedule: nothing up to epoch `start`, then poly to the end."""

    def factor(step: int, total_steps: int) -> float:
        first = start * steps_per_epoch(total_steps, epochs)
        return 0.0 if step < first else poly(step - first, total_steps - first, lr_power)

    return factor


def acr_schedules(
    epochs: int, *, alone: int, idle: int, joint_factor: float, lr_power: float
) -> Mapping[str, Schedule]:
    """Return the schedules of `acr`; none where both networks learn throughout at full rate."""
    if not alone and not idle and joint_factor == 1.0:
        return {}
    return {
        "classifier": restarted(
            epochs, alone=alone, idle=idle, joint_factor=joint_factor, lr_power=lr_power
        ),
        "reconstructor": delayed(epochs, start=alone, lr_power=lr_power),
    }
