"""Background's score beside class maps: a constant, or a power of what the classes leave.

Background by (1 - v)^alpha, v being a pixel's largest class value, falls as v rises; so it loses to
v exactly where v is above the one point at which both are equal. Where nothing but the larger of
the two counts, the second form is the first one in other units.
"""

from __future__ import annotations

from typing import Annotated

import numpy as np
import numpy.typing as npt
from pydantic import Discriminator, Tag

from wsss.runtime.settings import Fraction, Positive, Settings


class PowerBackground(Settings):
    """Background by (1 - the largest class)^alpha."""

    alpha: Positive = 1.0
    """The exponent (CLIP-ES: 1 before its CRF; 1 or 2 where it scores maps)."""


Background = Annotated[
    Annotated[Fraction, Tag("<number>")] | Annotated[PowerBackground, Tag("<section>")],
    Discriminator(
        lambda value: "<section>" if isinstance(value, (dict, PowerBackground)) else "<number>"
    ),
]
"""A constant score, 0..1, or `{alpha: 1}`."""


def threshold_of(background: Background) -> float:
    """Return the constant background score that labels as `background` does.

    Returns:
        t in 0..1; of a power, with (1 - t)^alpha = t: 0.5 for 1, 0.381966 for 2.
    """
    if not isinstance(background, PowerBackground):
        return background
    low, high = 0.0, 1.0
    # Halved until no number lies between them.
    while low < (middle := (low + high) / 2) < high:
        if (1 - middle) ** background.alpha > middle:
            low = middle
        else:
            high = middle
    return high


def background_map(
    maps: npt.NDArray[np.float32], background: Background
) -> npt.NDArray[np.float32]:
    """Return background's scores.

    Args:
        maps: (K, H, W) float32 in 0..1.
        background: Which.

    Returns:
        (H, W) float32 in 0..1.
    """
    if not isinstance(background, PowerBackground):
        return np.full(maps.shape[1:], background, dtype=np.float32)
    # Upsampling may exceed 1 by a rounding error, whose power would be no number.
    rest = np.clip(1 - maps.max(axis=0, initial=0.0), 0, 1)
    return np.asarray(rest**background.alpha, dtype=np.float32)
