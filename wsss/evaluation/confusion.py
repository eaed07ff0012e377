"""The data set's confusion matrix, and IoU, precision and recall from it.

Counts are int64: 32-bit counters wrap on full COCO. Ground-truth 255 is left out; predicted 255
("ignore" in pseudo-labels) counts as background.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from wsss.data.images import IGNORE


def confusion_matrix(
    truth: npt.NDArray[np.integer], prediction: npt.NDArray[np.integer], n_labels: int
) -> npt.NDArray[np.int64]:
    """Count the pixels of one image by (ground-truth label, predicted label).

    Args:
        truth: Labels, any shape; 0..n_labels-1, or 255, whose pixels are left out.
        prediction: Labels, same shape; 0..n_labels-1, or 255, counted as background (0).
        n_labels: Number of labels, background included.

    Returns:
        (n_labels, n_labels) int64; rows are ground truth, columns predictions.

    Raises:
        ValueError: Shapes differ, or a label is outside the range.
    """
    if truth.shape != prediction.shape:
        raise ValueError(f"ground truth is {truth.shape}, prediction {prediction.shape}")
    # 255 is "ignore" even where a data set had more than 255 labels: labels are uint8 PNGs.
    valid = truth != IGNORE
    truth_flat = truth[valid].astype(np.int64)
    prediction_flat = prediction[valid].astype(np.int64)
    prediction_flat[prediction_flat == IGNORE] = 0
    for name, labels in (("ground truth", truth_flat), ("prediction", prediction_flat)):
        if labels.size and not 0 <= int(labels.min()) <= int(labels.max()) < n_labels:
            bad = labels.min() if labels.min() < 0 else labels.max()
            raise ValueError(f"{name} holds the label {bad}, with {n_labels} labels known")
    counts = np.bincount(truth_flat * n_labels + prediction_flat, minlength=n_labels * n_labels)
    return counts.astype(np.int64).reshape(n_labels, n_labels)


@dataclass(frozen=True)
class Scores:
    """Scores of every label; NaN where undefined, and undefined values are out of the means.

    Attributes:
        iou: (n_labels,) float64, TP/(TP+FP+FN); undefined where that union is empty.
        precision: (n_labels,) float64, TP/(TP+FP); undefined where nothing was predicted.
        recall: (n_labels,) float64, TP/(TP+FN); undefined where the ground truth has none.
    """

    iou: npt.NDArray[np.float64]
    precision: npt.NDArray[np.float64]
    recall: npt.NDArray[np.float64]

    @property
    def mean_iou(self) -> float:
        """Mean IoU over the labels for which it is defined; NaN if it is for none."""
        return defined_mean(self.iou)

    @property
    def mean_precision(self) -> float:
        """Mean precision over the labels for which it is defined."""
        return defined_mean(self.precision)

    @property
    def mean_recall(self) -> float:
        """Mean recall over the labels for which it is defined."""
        return defined_mean(self.recall)


def defined_mean(values: npt.NDArray[np.float64]) -> float:
    """Return the mean of the values that are not NaN; NaN if there is none."""
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if defined.size else float("nan")


def _ratio(part: npt.NDArray[np.int64], whole: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    result = np.full(part.shape, np.nan, dtype=np.float64)
    np.divide(part, whole, out=result, where=whole > 0)
    return result


def scores_from_confusion(confusion: npt.NDArray[np.int64]) -> Scores:
    """Compute the scores of every label from an (n_labels, n_labels) confusion matrix."""
    true_positive = np.diagonal(confusion)
    in_truth = confusion.sum(axis=1)
    predicted = confusion.sum(axis=0)
    return Scores(
        iou=_ratio(true_positive, in_truth + predicted - true_positive),
        precision=_ratio(true_positive, predicted),
        recall=_ratio(true_positive, in_truth),
    )
