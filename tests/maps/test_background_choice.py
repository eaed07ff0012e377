"""Background scores from values alone: beside the formulas written out, score by score."""

from __future__ import annotations

import numpy as np
import pytest

from wsss.maps.background_choice import (
    band_counts,
    calibrated_area,
    choose_score,
    decision_boundary,
    edge_score,
    mean_value,
    minimum_error,
    object_area,
    object_share,
    otsu,
    power_score,
    quadratic_mean,
)

SCORES = tuple(round(0.02 * i, 6) for i in range(50))


@pytest.fixture(scope="module")
def values() -> np.ndarray:
    """Two humps of unequal height and width."""
    rng = np.random.default_rng(5)
    humps = [rng.normal(0.15, 0.05, 7000), rng.normal(0.7, 0.12, 3000)]
    return np.clip(np.concatenate(humps), 0, 1).astype(np.float32)


def naive(values, quality):
    """Return the score of the highest quality of (share, values) of both sides."""
    found = []
    for score in SCORES:
        above = values > np.float32(score)
        sides = [values[~above].astype(np.float64), values[above].astype(np.float64)]
        whole = all(len(side) > 1 for side in sides)
        found.append(quality(sides, len(values)) if whole else -np.inf)
    return SCORES[int(np.argmax(found))]


def between(sides, n):
    low, high = sides
    return len(low) * len(high) / n**2 * (low.mean() - high.mean()) ** 2


def likelihood(sides, n):
    # No part is taken to be narrower than a band of the histogram.
    deviations = [max(side.std(), 0.02 / np.sqrt(12)) for side in sides]
    return sum(
        len(side) / n * (np.log(len(side) / n) - np.log(deviation))
        for side, deviation in zip(sides, deviations, strict=True)
    )


def test_counts_are_of_values_above_each_score() -> None:
    counts = band_counts(np.float32([0.0, 0.1, 0.3, 0.3, 0.9]), (0.1, 0.3, 0.5))
    assert counts.tolist() == [2, 2, 0, 1]
    assert object_share(counts).tolist() == [0.6, 0.2, 0.2]


def test_otsu_and_minimum_error_are_where_their_formulas_say(values: np.ndarray) -> None:
    counts = band_counts(values, SCORES)
    width = SCORES[1] - SCORES[0]
    assert otsu(counts, SCORES) == pytest.approx(naive(values, between), abs=width + 1e-9)
    found = minimum_error(counts, SCORES)
    assert found == pytest.approx(naive(values, likelihood), abs=width + 1e-9)
    # Between unequal humps the flatter one reaches further: not the same thing.
    assert found < otsu(counts, SCORES)


def test_means_and_areas_are_those_of_the_values(values: np.ndarray) -> None:
    counts = band_counts(values, SCORES)
    assert mean_value(counts, SCORES) == pytest.approx(values.mean(), abs=0.02)
    squares = (values.astype(np.float64) ** 2).mean()
    assert quadratic_mean(counts, SCORES) == pytest.approx(np.sqrt(squares), abs=0.02)
    score = object_area(counts, SCORES, 0.25)
    below = SCORES[SCORES.index(score) - 1]
    assert (values > np.float32(score)).mean() <= 0.25 < (values > np.float32(below)).mean()


def test_what_auto_stands_for_is_the_quadratic_mean_over_all_images() -> None:
    rng = np.random.default_rng(1)
    maps = [rng.random((k, 9, 8 + k), np.float32) ** k for k in (1, 2, 3)]
    values = np.concatenate([each.max(axis=0).ravel() for each in maps])
    score, share = choose_score(maps)
    root = np.sqrt((values.astype(np.float64) ** 2).mean())
    assert score == pytest.approx(root, abs=0.01)
    assert abs(root - values.mean()) > 0.03  # so that it is not the mean
    assert share == pytest.approx((values > np.float32(score)).mean())
    with pytest.raises(ValueError, match="no maps"):
        choose_score([])


def test_edges_choose_the_middle_of_their_slopes() -> None:
    # A hill from 0.2 to 0.8 on a wide plain of 0.2, whose values alone say 0.2.
    distance = np.maximum(*np.abs(np.indices((60, 60)) - 29.5))
    hill = (0.2 + 0.6 / (1 + np.exp(2 * (distance - 10)))).astype(np.float32)
    flat = np.full((2, 7, 1), 0.9, np.float32)
    assert edge_score([hill[None], flat]) == pytest.approx(0.5, abs=0.02)
    assert edge_score([flat]) == 0.5
    # Written out: central differences, one-sided halves at the border.
    rng = np.random.default_rng(0)
    value = rng.random((4, 5))
    total = weighted = 0.0
    for i in range(4):
        for j in range(5):
            down = (value[min(i + 1, 3), j] - value[max(i - 1, 0), j]) / 2
            right = (value[i, min(j + 1, 4)] - value[i, max(j - 1, 0)]) / 2
            total += down**2 + right**2
            weighted += (down**2 + right**2) * value[i, j]
    assert edge_score([value[None].astype(np.float32)]) == round(weighted / total, 2)


def test_the_calibrated_area_is_the_mean(values: np.ndarray) -> None:
    counts = band_counts(values, SCORES)
    score = calibrated_area(counts, SCORES)
    below = SCORES[SCORES.index(score) - 1]
    mean = float(values.mean(dtype=np.float64))
    assert (values > np.float32(score)).mean() <= mean + 0.01
    assert (values > np.float32(below)).mean() >= mean - 0.01


def test_maps_without_any_spread_still_give_a_score() -> None:
    for value in (0.0, 0.5, 1.0):
        counts = band_counts(np.full(10, value, np.float32), SCORES)
        for choose in (otsu, minimum_error, calibrated_area):
            assert choose(counts, SCORES) in SCORES


def test_a_picture_without_a_class_is_all_background() -> None:
    some = np.full((2, 3, 3), 0.5, np.float32)
    nothing = np.zeros((0, 3, 3), np.float32)
    assert choose_score([some, nothing]) == choose_score([some, np.zeros((1, 3, 3), np.float32)])
    assert edge_score([nothing]) == 0.5


def test_a_side_without_values_has_a_mean_of_nothing() -> None:
    # What lies in memory that was used before may not get into the choice.
    for values in (np.zeros(10, np.float32), np.ones(10, np.float32)):
        counts = band_counts(values, SCORES)
        used = [np.full(len(SCORES), np.nan) for _ in range(50)]
        del used
        # Nowhere are there two parts: of equals the lowest.
        assert otsu(counts, SCORES) == SCORES[0]


def test_scores_that_need_no_map() -> None:
    assert decision_boundary(SCORES) == 0
    assert power_score(SCORES, 1) == 0.5
    # (1 - 0.382)^2 = 0.382
    assert power_score(SCORES, 2) == 0.38
