"""The table that finds a value's band among the background scores of a sweep."""

from __future__ import annotations

import numpy as np
import pytest

from wsss.evaluation.sweep import SweepCounts, _Bands, as_thresholds


@pytest.mark.parametrize(
    "values",
    [
        [0.3],
        [0.0, 1.0],
        [round(0.01 * i, 6) for i in range(100)],
        [round(0.001 * i, 6) for i in range(1, 1000)],
        [-0.0, 1e-42, 0.25],  # below what is normal
        [0.1, 0.100001, 5.0],  # too close for a table
        [-2.0, 0.1, 5.0],
    ],
)
def test_bands_are_those_of_a_search(values):
    thresholds = as_thresholds(values)
    rng = np.random.default_rng(2)
    near = np.concatenate(
        [np.nextafter(thresholds, np.float32(side)) for side in (-np.inf, np.inf)]
    )
    some = rng.uniform(-1, 2, 5000).astype(np.float32)
    ends = np.array([-1e30, 1e30, 0.0, -0.0, 1e-45, -1e-45], np.float32)
    asked = np.concatenate([thresholds, near, some, ends])
    found = _Bands(thresholds)(asked)
    assert np.array_equal(found, np.searchsorted(thresholds, asked, side="left"))


def test_a_tie_with_the_background_is_background():
    counts = SweepCounts(1, as_thresholds([0.3]))
    maps = np.array([[[0.3, np.nextafter(np.float32(0.3), np.float32(1))]]], np.float32)
    counts.add(np.ones((1, 2), np.uint8), np.array([0]), maps)
    assert counts.confusion(0).tolist() == [[0, 0], [1, 1]]
