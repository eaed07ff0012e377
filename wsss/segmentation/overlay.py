"""Predictions as pictures for people: the image with its classes coloured, and a legend."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from wsss.data import drawing

MIN_LEGEND_WIDTH_PX = 240


def overlay(
    image: npt.NDArray[np.uint8],
    label: npt.NDArray[np.uint8],
    classes: Sequence[str],
    probabilities: npt.NDArray[np.floating],
) -> npt.NDArray[np.uint8]:
    """Colour the image by its labels; below, name each class, its share and its confidence.

    The confidence of a class is the mean of its probability over the pixels that have it.

    Args:
        image: (H, W, 3) uint8 RGB.
        label: (H, W) uint8, 0 background.
        classes: Names without background.
        probabilities: (n_labels, H, W), from which the labels come.

    Returns:
        RGB uint8, as wide as the image (or as a legend needs) and higher by the legend.
    """
    counts = np.bincount(label.reshape(-1), minlength=len(classes) + 1)
    entries = [
        (value, _entry(classes[value - 1], probabilities[value][label == value], label.size))
        for value in range(1, len(classes) + 1)
        if counts[value]
    ]
    picture = drawing.blend_labels(image, label)
    width = max(image.shape[1], MIN_LEGEND_WIDTH_PX)
    strip = drawing.legend(width, entries or [(0, "no known class")])
    return drawing.below([picture, strip], gap_px=0)


def _entry(name: str, sure: npt.NDArray[np.floating], pixels: int) -> str:
    return f"{name} {100 * sure.size / pixels:.0f} %, {100 * float(sure.mean()):.0f} % sure"
