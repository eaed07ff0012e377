"""A few masks choose a background score: beside scoring each bootstrap sample as a data set."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from wsss.evaluation.sweep import SweepCounts, as_thresholds
from wsss.evaluation.thresholds import SAMPLES, ImageCounts, choose, describe

VALUES = tuple(round(0.1 * i, 6) for i in range(1, 10))


def pictures(count, blunt):
    """Squares whose maps are right above `blunt`, with noise that differs between pictures."""
    rng = np.random.default_rng(3)
    for _ in range(count):
        truth = np.zeros((16, 16), np.uint8)
        truth[4:12, 4:12] = rng.integers(1, 3)
        maps = np.zeros((1, 16, 16), np.float32)
        edge = blunt + rng.normal(0, 0.1)
        maps[0] = np.where(truth > 0, edge, edge - 0.2) + rng.normal(0, 0.1, truth.shape)
        yield truth, np.array([int(truth.max()) - 1]), maps


def counted(images):
    counts = ImageCounts(3, len(VALUES))
    for image in images:
        one = SweepCounts(2, as_thresholds(VALUES))
        one.add(*image)
        counts.add(one)
    return counts


def naive_mean_iou(images, threshold):
    ious = []
    for label in range(3):
        true = union = 0
        for truth, (position,), maps in images:
            found = np.where(maps[0] > np.float32(threshold), position + 1, 0)
            true += ((truth == label) & (found == label)).sum()
            union += ((truth == label) | (found == label)).sum()
        if union:
            ious.append(true / union)
    return np.mean(ious)


def test_choice_and_interval_equal_scoring_every_sample():
    images = list(pictures(6, 0.6))
    choice = choose(counted(images), VALUES, 0.3, seed=4)
    scores = [naive_mean_iou(images, value) for value in VALUES]
    assert choice.best == VALUES[int(np.argmax(scores))]
    assert choice.best_iou == pytest.approx(max(scores))
    assert choice.configured_iou == pytest.approx(scores[2])
    drawn = np.random.default_rng(4).multinomial(6, [1 / 6] * 6, size=SAMPLES)
    bests = []
    for weights in drawn[:100]:
        sample = [image for image, n in zip(images, weights, strict=True) for _ in range(n)]
        bests.append(int(np.argmax([naive_mean_iou(sample, value) for value in VALUES])))
    means = counted(images).mean_iou(drawn[:100].astype(np.float64))
    assert means.argmax(axis=1).tolist() == bests
    assert choice.low <= choice.best <= choice.high and choice.low < choice.high
    sampled = counted(images).mean_iou(drawn.astype(np.float64))
    gains = sampled[:, int(np.argmax(scores))] - sampled[:, 2]
    assert (choice.gain_low, choice.gain_high) == pytest.approx(
        tuple(np.percentile(gains, (2.5, 97.5)))
    )


def test_an_image_takes_no_memory_for_the_classes_that_it_has_not():
    counts, one = ImageCounts(81, len(VALUES)), SweepCounts(80, as_thresholds(VALUES))
    one.add(*next(iter(pictures(1, 0.5))))
    counts.add(one)
    # Background and a class: labels, and three counts of each at each score, in 8 bytes.
    assert len(pickle.dumps(counts)) < 2 * (1 + 3 * len(VALUES)) * 8 + 1000
    assert counts.mean_iou(np.ones((1, 1))).shape == (1, len(VALUES))


def test_more_masks_make_it_surer():
    few, many = (choose(counted(pictures(n, 0.5)), VALUES, 0.1) for n in (3, 60))
    assert many.high - many.low <= few.high - few.low
    assert many.gain_low > 0
    text = describe(many, "pseudo_labels.background")
    assert text.startswith("pseudo_labels.background: 60 masks choose ")
    assert "cannot tell" not in text and "too few" not in text
    assert describe(few, "a.b").endswith("; 3 masks are too few for an interval")


def test_one_mask_alone_has_no_spread():
    choice = choose(counted(pictures(1, 0.5)), VALUES, 0.5)
    assert choice.low == choice.best == choice.high
    gain = choice.best_iou - choice.configured_iou
    assert (choice.gain_low, choice.gain_high) == pytest.approx((gain, gain))


def test_classes_that_no_mask_and_no_map_has_do_not_count():
    # Background alone, found everywhere: one class of three, without a fault.
    nothing = (np.zeros((4, 4), np.uint8), np.zeros(0, np.int64), np.zeros((0, 4, 4), np.float32))
    assert (counted([nothing, nothing]).mean_iou(np.ones((1, 2))) == 1).all()
