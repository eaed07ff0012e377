"""The learning rate of vision transformers: linear warm-up, then a cosine (DeiT, MCTformer)."""

from __future__ import annotations

import math

from wsss.errors import UserError


def scaled_learning_rate(rate_at_512: float, batch_size: int) -> float:
    """Return the learning rate for `batch_size`, linear in it: rate_at_512 * batch_size / 512."""
    if batch_size < 1:
        raise UserError(f"a batch size of {batch_size}", expected="at least 1")
    return rate_at_512 * batch_size / 512


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


def cosine_factor(
    step: int,
    total_steps: int,
    *,
    warmup_steps: int,
    peak: float,
    final: float = 1e-5,
    start: float = 1e-6,
) -> float:
    """Return `cosine_learning_rate` divided by `peak`, for loops that scale an initial rate."""
    rate = cosine_learning_rate(
        step, total_steps, warmup_steps=warmup_steps, peak=peak, final=final, start=start
    )
    return rate / peak
