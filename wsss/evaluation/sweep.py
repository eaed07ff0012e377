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

# Bins of the table that finds a value's band: what fits a core's nearest cache.
_MAX_BINS = 4096


def as_thresholds(values: Sequence[float]) -> npt.NDArray[np.float32]:
    """Return ascending background scores in float32, the type of the maps they are compared with.

    In one type on both sides a tie is a tie; a float64 0.3 lies below the float32 0.3.
    """
    thresholds = np.asarray(values, dtype=np.float32)
    if thresholds.ndim != 1 or thresholds.size == 0 or bool(np.any(np.diff(thresholds) <= 0)):
        raise ValueError("background scores must be a non-empty, strictly ascending sequence")
    return thresholds


class _Bands:
    """Number of thresholds strictly below each of many values: `np.searchsorted`, by a table.

    Values fall into bins of equal width, so narrow that no bin holds two thresholds. The bin is a
    monotone function of the value, in floating point too, so a threshold in a lower bin is
    smaller, one in a higher bin larger, and only the one of the value's own bin is compared.
    """

    def __init__(self, thresholds: npt.NDArray[np.float32]) -> None:
        self._first = thresholds[0]
        span = thresholds[-1] - thresholds[0]
        closest = np.diff(thresholds).min(initial=span) if thresholds.size > 1 else np.float32(1)
        # The usual sweeps need some hundred bins. Thresholds of wildly different distances would
        # need too many for a table that stays in cache.
        bins = min(_MAX_BINS, 2 ** int(np.ceil(np.log2(2 * max(1.0, span / closest))) + 1))
        self._scale = np.float32((bins - 1) / span if span > 0 else 1)
        self._last = np.float32(bins - 1)
        own = self._bins(thresholds)
        self._search = thresholds if np.unique(own).size < thresholds.size else None
        counts = np.bincount(own, minlength=bins)
        self._below = np.cumsum(counts) - counts
        self._edge = np.full(bins, np.inf, dtype=np.float32)
        self._edge[own] = thresholds

    def _bins(self, values: npt.NDArray[np.float32]) -> npt.NDArray[np.intp]:
        place = values - self._first
        place *= self._scale
        np.maximum(place, np.float32(0), out=place)
        np.minimum(place, self._last, out=place)
        return place.astype(np.intp)

    def __call__(self, values: npt.NDArray[np.float32]) -> npt.NDArray[np.intp]:
        """Return the band of each of the finite `values`; same shape."""
        if self._search is not None:
            # side="left": the number of thresholds strictly below the value; a tie is not above.
            return np.searchsorted(self._search, values, side="left")
        bins = self._bins(values)
        band = self._below.take(bins)
        band += values > self._edge.take(bins)
        return band


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
        self._bands = _Bands(thresholds)
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
            truth: (H, W) labels, 0..n_labels-1; 255 is left out.
            class_indices: (K,) 0-based classes of the maps; K may be 0: all background.
            maps: (K, H, W) float32, one map a class, finite.

        Raises:
            ValueError: Shapes differ, a label is outside the range, or a map is not finite.
        """
        if maps.shape != (len(class_indices), *truth.shape):
            raise ValueError(f"maps are {maps.shape}, ground truth {truth.shape}")
        if len(class_indices) == 0:
            self.counts[:, 0, 0] += self._count(truth, None, 1).reshape(-1)
            return
        value, bands = maps[0], self.thresholds.size + 1
        offset = np.zeros(truth.shape, dtype=np.intp)
        for position in range(1, len(maps)):
            # Strictly larger: of equal classes the first is the strongest.
            np.copyto(offset, position * bands, where=maps[position] > value)
            value = np.maximum(value, maps[position])
        if not np.isfinite(value).all():
            raise ValueError("a map holds values that are not finite")
        offset += self._bands(value)
        counts = self._count(truth, offset, len(class_indices) * bands)
        self.counts[:, np.asarray(class_indices) + 1] += counts.reshape(
            self.n_labels, len(class_indices), bands
        )

    def _count(
        self,
        truth: npt.NDArray[np.integer],
        offset: npt.NDArray[np.intp] | None,
        width: int,
    ) -> npt.NDArray[np.int64]:
        """Return (n_labels, width) counts by label and `offset` (H, W), 0..width-1.

        Ignored pixels and impossible labels get rows of their own after the others, which is
        quicker than picking the rest out.
        """
        if truth.dtype != np.uint8:
            low, high = (truth.min(), truth.max()) if truth.size else (0, 0)
            if low < 0 or high > IGNORE:
                raise self._unknown_label(low if low < 0 else high)
            truth = truth.astype(np.uint8)
        row = np.full(256, (self.n_labels + 1) * width, dtype=np.intp)
        row[: self.n_labels] = np.arange(self.n_labels) * width
        row[IGNORE] = self.n_labels * width
        index = row.take(truth)
        if offset is not None:
            index += offset
        counts = np.bincount(index.ravel(), minlength=(self.n_labels + 2) * width)
        counts = counts.reshape(-1, width)
        if counts[self.n_labels + 1].any():
            raise self._unknown_label(truth[truth != IGNORE].max())
        return counts[: self.n_labels].astype(np.int64, copy=False)

    def _unknown_label(self, label: np.integer) -> ValueError:
        return ValueError(f"ground truth holds the label {label}, with {self.n_labels} known")

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
