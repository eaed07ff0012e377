"""Predictions as pictures for people: the image with its classes coloured, and a legend."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from wsss.data import drawing

MIN_LEGEND_WIDTH_PX = 240


def overlay(
    image: npt.NDArray[np.uint8], label: npt.NDArray[np.uint8], classes: Sequence[str]
) -> npt.NDArray[np.uint8]:
    """Colour the image by its labels and name each class and its share of the picture below.

    Args:
        image: (H, W, 3) uint8 RGB.
        label: (H, W) uint8, 0 background.
        classes: Names without background.

    Returns:
        RGB uint8, as wide as the image (or as a legend needs) and higher by the legend.
    """
    counts = np.bincount(label.reshape(-1), minlength=len(classes) + 1)
    entries = [
        (value, f"{classes[value - 1]} {100 * counts[value] / label.size:.0f} %")
        for value in range(1, len(classes) + 1)
        if counts[value]
    ]
    picture = drawing.blend_labels(image, label)
    width = max(image.shape[1], MIN_LEGEND_WIDTH_PX)
    strip = drawing.legend(width, entries or [(0, "no known class")])
    return drawing.below([picture, strip], gap_px=0)
