"""Scoring class maps at every background score in one pass.

A pixel's label at background score t is its strongest class if that class's value is above t,
else background; a tie with the background score is background. The strongest class does not
depend on t, so a histogram of its value, by (ground-truth label, strongest class), holds the
confusion matrices of all t at once: exactly those of scoring at each t in turn.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from wsss.evaluation.confusion import IGNORE


def as_thresholds(values: Sequence[float]) -> npt.NDArray[np.float32]:
    """Return ascending background scores in float32, the type of the maps they are compared with.

    In one type on both sides a tie is a tie; a float64 0.3 lies below the float32 0.3.
    """
    thresholds = np.asarray(values, dtype=np.float32)
    if thresholds.ndim != 1 or thresholds.size == 0 or bool(np.any(np.diff(thresholds) <= 0)):
        raise ValueError("background scores must be a non-empty, strictly ascending sequence")
    return thresholds


class SweepCounts:
    """Counts of pixels by ground-truth label, strongest class and band of its value.

    Band b holds the pixels whose strongest value is above exactly b of the thresholds.

    Args:
        n_classes: Number of classes without background; labels are class position + 1.
        thresholds: (T,) ascending background scores, float32 (`as_thresholds`).
    """

    def __init__(self, n_classes: int, thresholds: npt.NDArray[np.float32]) -> None:
        self.thresholds = thresholds
        self.n_labels = n_classes + 1
        # Background's own column stays 0 but for pixels of images without any class map.
        self.counts = np.zeros((self.n_labels, self.n_labels, thresholds.size + 1), dtype=np.int64)

    def add(
        self,
        truth: npt.NDArray[np.integer],
        class_indices: npt.NDArray[np.integer],
        maps: npt.NDArray[np.float32],
    ) -> None:
        """Count one image.

        Args:
            truth: (H, W) labels; 255 is left out.
            class_indices: (K,) 0-based classes of the maps; K may be 0: all background.
            maps: (K, H, W) float32, one map a class, finite.

        Raises:
            ValueError: Shapes differ, a label is outside the range, or a map is not finite.
        """
        if maps.shape != (len(class_indices), *truth.shape):
            raise ValueError(f"maps are {maps.shape}, ground truth {truth.shape}")
        valid = truth != IGNORE
        truth_flat = truth[valid].astype(np.int64)
        if truth_flat.size and not 0 <= truth_flat.min() <= truth_flat.max() < self.n_labels:
            raise ValueError(
                f"ground truth holds the label {truth_flat.max()}, with {self.n_labels} known"
            )
        if len(class_indices) == 0:
            self.counts[:, 0, 0] += np.bincount(truth_flat, minlength=self.n_labels)
            return
        strongest = maps.argmax(axis=0)[valid]
        value = maps.max(axis=0)[valid]
        if not np.isfinite(value).all():
            raise ValueError("a map holds values that are not finite")
        bands = self.thresholds.size + 1
        # side="left": the number of thresholds strictly below the value; a tie is not above.
        band = np.searchsorted(self.thresholds, value, side="left")
        n_maps = len(class_indices)
        index = (truth_flat * n_maps + strongest) * bands + band
        counts = np.bincount(index, minlength=self.n_labels * n_maps * bands)
        self.counts[:, np.asarray(class_indices) + 1] += counts.reshape(-1, n_maps, bands)

    def merge(self, other: SweepCounts) -> None:
        """Add the counts of another part of the images, with the same thresholds and classes."""
        if not np.array_equal(self.thresholds, other.thresholds):
            raise ValueError("counts over different background scores cannot be added")
        self.counts += other.counts

    def confusion(self, position: int) -> npt.NDArray[np.int64]:
        """Return the (n_labels, n_labels) confusion matrix at the threshold of that position."""
        result: npt.NDArray[np.int64] = self.counts[:, :, position + 1 :].sum(axis=2)
        result[:, 0] = self.counts[:, :, : position + 1].sum(axis=(1, 2))
        return result
