"""Agreement of label maps: beside counting pixel by pixel, and on pictures made by hand."""

from __future__ import annotations

import numpy as np
import pytest

from wsss.data.crf_config import LabelCrfConfig
from wsss.data.map_agreement import (
    crf_agreement,
    label_agreement,
    labels_at,
    mean_overlap,
    overlap_counts,
    scaled_crf,
)

SCORES = (0.1, 0.3, 0.5, 0.9)


def test_labels_at_each_score_are_the_strongest_class_above_it() -> None:
    maps = np.float32([[[0.2, 0.6, 0.5]], [[0.1, 0.7, 0.5]]])
    found = [labels.tolist() for labels in labels_at(maps, SCORES)]
    assert found == [[[1, 2, 1]], [[0, 2, 1]], [[0, 2, 0]], [[0, 0, 0]]]


def test_a_label_in_neither_map_counts_as_none_found() -> None:
    first, second = np.array([[0, 0, 1, 1]]), np.array([[0, 1, 1, 1]])
    assert label_agreement(first, second, 2) == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert label_agreement(first, second, 3) == pytest.approx((1 / 2 + 2 / 3) / 3)
    assert label_agreement(first * 0, first * 0, 2) == 0.5


def test_overlaps_are_those_of_counting_every_pixel() -> None:
    rng = np.random.default_rng(2)
    total = np.zeros((len(SCORES), 3, 5), dtype=np.int64)
    here = {score: [] for score in SCORES}
    there = []
    for indices in ((0, 3), (2,)):
        maps = rng.integers(0, 11, (len(indices), 9, 7)).astype(np.float32) / 10
        labels = rng.choice(np.array([0, 1, 3, 4, 255], np.uint8), size=(9, 7))
        total += overlap_counts(maps, np.array(indices), labels, SCORES, 5)
        there += labels.ravel().tolist()
        for score in SCORES:
            for column in maps.reshape(len(indices), -1).T:
                best = int(column.argmax())
                is_object = column[best] > np.float32(score)
                here[score].append(indices[best] + 1 if is_object else 0)
    for row, score in enumerate(SCORES):
        pairs = [(a, b) for a, b in zip(here[score], there, strict=True) if b != 255]
        for label in range(5):
            expected = [
                sum(a == label for a, _ in pairs),
                sum(b == label for _, b in pairs),
                sum(a == b == label for a, b in pairs),
            ]
            assert total[row, :, label].tolist() == expected
        ious = []
        for a, b, both in total[row].T.tolist():
            ious += [both / (a + b - both)] if a + b - both else []
        assert mean_overlap(total)[row] == pytest.approx(np.mean(ious))


def test_the_crf_agrees_most_where_the_object_ends() -> None:
    image = np.full((48, 48, 3), (30, 150, 60), np.uint8)
    image[14:34, 14:34] = (200, 40, 30)
    # The object is where the map is above 0.6; at 0.2 and 0.9 it is too large or too small.
    distance = np.maximum(*np.abs(np.indices((48, 48)) - 23.5))
    maps = np.clip(1 - 0.04 * distance, 0, 1).astype(np.float32)[None]
    settings = LabelCrfConfig(bilateral_sxy=10)
    found = crf_agreement(image, maps, (0.2, 0.6, 0.9), settings)
    assert found.argmax() == 1 and found[1] > 0.95


def test_a_reduced_picture_has_narrower_kernels() -> None:
    found = scaled_crf(LabelCrfConfig(), 4)
    assert (found.gaussian_sxy, found.bilateral_sxy) == (0.75, 12.5)
    assert found.bilateral_srgb == LabelCrfConfig().bilateral_srgb
