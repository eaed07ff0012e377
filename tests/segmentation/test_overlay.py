"""The legend below a prediction: as wide as the picture, or as it needs."""

from __future__ import annotations

import numpy as np
import pytest

from wsss.data import drawing
from wsss.segmentation.overlay import MIN_LEGEND_WIDTH_PX, overlay

CLASSES = ("a long name of a class", "another long name", "the last of all")


@pytest.mark.parametrize("width", [100, 700])
def test_the_legend_has_the_pictures_width(width: int) -> None:
    image = np.full((40, width, 3), 90, np.uint8)
    label = np.repeat(np.arange(4, dtype=np.uint8), 10)[:, None] * np.ones((1, width), np.uint8)
    probabilities = np.full((4, 40, width), 0.75, np.float32)
    entries = [(i + 1, f"{name} 25 %, 75 % sure") for i, name in enumerate(CLASSES)]
    strip = drawing.legend(max(width, MIN_LEGEND_WIDTH_PX), entries)
    found = overlay(image, label, CLASSES, probabilities)
    assert found.shape == (40 + strip.shape[0], max(width, MIN_LEGEND_WIDTH_PX), 3)
    # Right below each other.
    assert np.array_equal(found[40:], strip)
    assert np.array_equal(found[:40, :width], drawing.blend_labels(image, label))


def test_a_picture_of_background_says_so() -> None:
    image, label = np.zeros((20, 300, 3), np.uint8), np.zeros((20, 300), np.uint8)
    found = overlay(image, label, CLASSES, np.ones((4, 20, 300), np.float32))
    assert np.array_equal(found[20:], drawing.legend(300, [(0, "no known class")]))
