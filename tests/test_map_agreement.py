"""Agreement of label maps: beside counting pixel by pixel, and on pictures made by hand."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wsss.data.crf_config import LabelCrfConfig

SCORES = (0.1, 0.3, 0.5, 0.9)


@pytest.fixture
def agreement(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Benchmarks are imported from the repository's root."""
    monkeypatch.syspath_prepend(Path(__file__).resolve().parents[1])
    return importlib.import_module("benchmarks.map_agreement")


def test_labels_at_each_score_are_the_strongest_class_above_it(agreement: Any) -> None:
    maps = np.float32([[[0.2, 0.6, 0.5]], [[0.1, 0.7, 0.5]]])
    found = [labels.tolist() for labels in agreement.labels_at(maps, SCORES)]
    assert found == [[[1, 2, 1]], [[0, 2, 1]], [[0, 2, 0]], [[0, 0, 0]]]


def test_a_label_in_neither_map_counts_as_none_found(agreement: Any) -> None:
    first, second = np.array([[0, 0, 1, 1]]), np.array([[0, 1, 1, 1]])
    assert agreement.label_agreement(first, second, 2) == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert agreement.label_agreement(first, second, 3) == pytest.approx((1 / 2 + 2 / 3) / 3)
    assert agreement.label_agreement(first * 0, first * 0, 2) == 0.5


def test_the_crf_agrees_most_where_the_object_ends(agreement: Any) -> None:
    image = np.full((48, 48, 3), (30, 150, 60), np.uint8)
    image[14:34, 14:34] = (200, 40, 30)
    # The object is where the map is above 0.6; at 0.2 and 0.9 it is too large or too small.
    distance = np.maximum(*np.abs(np.indices((48, 48)) - 23.5))
    maps = np.clip(1 - 0.04 * distance, 0, 1).astype(np.float32)[None]
    settings = LabelCrfConfig(bilateral_sxy=10)
    found = agreement.crf_agreement(image, maps, (0.2, 0.6, 0.9), settings)
    assert found.argmax() == 1 and found[1] > 0.95


def test_a_reduced_picture_has_narrower_kernels(agreement: Any) -> None:
    found = agreement.scaled_crf(LabelCrfConfig(), 4)
    assert (found.gaussian_sxy, found.bilateral_sxy) == (0.75, 12.5)
    assert found.bilateral_srgb == LabelCrfConfig().bilateral_srgb
