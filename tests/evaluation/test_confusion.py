"""Confusion matrix and scores against counting pixel by pixel."""

from __future__ import annotations

import math

import numpy as np
import pytest

from wsss.evaluation.confusion import confusion_matrix, defined_mean, scores_from_confusion


def naive_confusion(truth, prediction, n_labels):
    counts = [[0] * n_labels for _ in range(n_labels)]
    for t, p in zip(truth.ravel().tolist(), prediction.ravel().tolist(), strict=True):
        if t != 255:
            counts[t][0 if p == 255 else p] += 1
    return np.array(counts)


def naive_scores(truth, prediction, label):
    pairs = [
        (t, 0 if p == 255 else p)
        for t, p in zip(truth.ravel().tolist(), prediction.ravel().tolist(), strict=True)
        if t != 255
    ]
    tp = sum(t == label and p == label for t, p in pairs)
    fp = sum(t != label and p == label for t, p in pairs)
    fn = sum(t == label and p != label for t, p in pairs)
    return (
        tp / (tp + fp + fn) if tp + fp + fn else math.nan,
        tp / (tp + fp) if tp + fp else math.nan,
        tp / (tp + fn) if tp + fn else math.nan,
    )


@pytest.fixture
def labels():
    rng = np.random.default_rng(3)
    # Label 4 occurs in neither, 3 only in the prediction.
    truth = rng.choice(np.array([0, 1, 2, 255], np.uint8), size=(19, 23))
    prediction = rng.choice(np.array([0, 1, 2, 3, 255], np.uint8), size=(19, 23))
    return truth, prediction


def test_counts_equal_a_loop_over_the_pixels(labels):
    counts = confusion_matrix(*labels, 5)
    assert counts.dtype == np.int64
    assert np.array_equal(counts, naive_confusion(*labels, 5))


def test_scores_equal_their_definition(labels):
    scores = scores_from_confusion(confusion_matrix(*labels, 5))
    for label in range(5):
        expected = naive_scores(*labels, label)
        got = (scores.iou[label], scores.precision[label], scores.recall[label])
        np.testing.assert_allclose(got, expected, rtol=1e-12)


def test_a_class_that_is_nowhere_is_out_of_the_mean(labels):
    scores = scores_from_confusion(confusion_matrix(*labels, 5))
    assert math.isnan(scores.iou[4])
    assert scores.iou[3] == 0  # predicted, never true: defined, and counted
    assert scores.mean_iou == pytest.approx(np.mean(scores.iou[:4]))
    assert math.isnan(scores.recall[3])
    assert scores.mean_recall == pytest.approx(np.mean(scores.recall[:3]))


def test_ignored_predictions_are_background_and_ignored_truth_is_left_out():
    truth = np.array([[0, 1, 255, 255]], np.uint8)
    prediction = np.array([[255, 255, 1, 255]], np.uint8)
    assert confusion_matrix(truth, prediction, 2).tolist() == [[1, 0], [1, 0]]


def test_counts_beyond_32_bits_are_kept():
    # Full COCO: 82,000 images of 300,000 pixels are above 2**32.
    counts = np.full((2, 2), 2**33, dtype=np.int64)
    scores = scores_from_confusion(counts)
    assert scores.iou.tolist() == pytest.approx([1 / 3, 1 / 3])
    assert scores.precision.tolist() == pytest.approx([0.5, 0.5])


@pytest.mark.parametrize(("truth", "prediction"), [([[5]], [[0]]), ([[0]], [[5]])])
def test_labels_out_of_range_are_refused(truth, prediction):
    with pytest.raises(ValueError, match="holds the label 5"):
        confusion_matrix(np.array(truth, np.uint8), np.array(prediction, np.uint8), 5)


def test_shapes_must_agree():
    with pytest.raises(ValueError, match="prediction"):
        confusion_matrix(np.zeros((2, 3), np.uint8), np.zeros((3, 2), np.uint8), 2)


def test_a_mean_of_nothing_is_undefined():
    assert math.isnan(defined_mean(np.array([np.nan, np.nan])))
