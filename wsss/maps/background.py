"""Background's score beside class maps: a constant, or a power of what the classes leave.

Background by (1 - v)^alpha, v being a pixel's largest class value, falls as v rises; so it loses to
v exactly where v is above the one point at which both are equal. Where nothing but the larger of
the two counts, the second form is the first one in other units.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Discriminator, Tag

from wsss.errors import UserError
from wsss.runtime.settings import Fraction, Number, Positive, Settings


class PowerBackground(Settings):
    """Background by (1 - the largest class)^alpha."""

    alpha: Positive = 1.0
    """The exponent (CLIP-ES: 1 before its CRF; 1 or 2 where it scores maps)."""


Auto = Literal["auto"]
AUTO: Auto = "auto"
"""Chosen from the maps themselves, without masks (`wsss.maps.chosen`)."""


def _form(value: Any) -> str:
    if value == AUTO:
        return "<auto>"
    return "<section>" if isinstance(value, (dict, PowerBackground)) else "<number>"


Background = Annotated[
    Annotated[Fraction, Tag("<number>")]
    | Annotated[PowerBackground, Tag("<section>")]
    | Annotated[Auto, Tag("<auto>")],
    Discriminator(_form),
]
"""A constant score, 0..1, or `{alpha: 1}`, or `auto`."""

Score = Annotated[
    Annotated[Number, Tag("<number>")] | Annotated[Auto, Tag("<auto>")], Discriminator(_form)
]
"""A number, or `auto`."""


def winner(scores: npt.NDArray[np.float32], background: float) -> npt.NDArray[np.int64]:
    """Return 0 where no score exceeds `background`, else 1 + the first largest score's place.

    Args:
        scores: (K, H, W) float32, one map a class; K may be 0.
        background: A constant score; a tie with it is background.

    Returns:
        (H, W) int64.
    """
    if scores.shape[0] == 0:
        return np.zeros(scores.shape[1:], np.int64)
    best = np.where(scores.max(0) > np.float32(background), scores.argmax(0) + 1, 0)
    return np.asarray(best, dtype=np.int64)


def threshold_of(background: Background) -> float:
    """Return the constant background score that labels as `background` does.

    Returns:
        t in 0..1; of a power, with (1 - t)^alpha = t: 0.5 for 1, 0.381966 for 2.

    Raises:
        UserError: It is `auto`, which only the maps can tell.
    """
    if background == AUTO:
        raise UserError(
            "this background score is 'auto', and no chosen one is at hand",
            expected="a number",
            fix="hand over the file of chosen scores: --thresholds results/<run>/thresholds.json",
        )
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
        return np.full(maps.shape[1:], threshold_of(background), dtype=np.float32)
    # Upsampling may exceed 1 by a rounding error, whose power would be no number.
    rest = np.clip(1 - maps.max(axis=0, initial=0.0), 0, 1)
    return np.asarray(rest**background.alpha, dtype=np.float32)
