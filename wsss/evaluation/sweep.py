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

from wsss.data.images import IGNORE

# Bits of a value that its bin leaves out, the coarsest bins first. Of the table only what lies
# about the values met is read, so that it may be larger than a core's cache.
_SHIFTS = range(16, 11, -1)
# Pixels at a time: what is computed for them stays in cache, and no array is so large that the
# memory for it comes from the system, zeroed, each time (four times slower in all).
_PART = 32768


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

    A value's bin is the first bits of its float32: sign, exponent, and as much of the fraction as
    it takes for no bin to hold two thresholds. Of numbers that are not negative these bits rise
    with the number, so a threshold in a lower bin is smaller, one in a higher bin larger, and only
    the one of the value's own bin is compared.
    """

    def __init__(self, thresholds: npt.NDArray[np.float32]) -> None:
        thresholds = thresholds + np.float32(0)  # -0.0 becomes 0.0
        bits = thresholds.view(np.uint32)
        self._shift = next(
            (
                np.uint32(shift)
                for shift in _SHIFTS
                if thresholds[0] >= 0 and np.unique(bits >> shift).size == thresholds.size
            ),
            None,
        )
        self._search = thresholds
        if self._shift is None:
            return
        own, bins = (bits >> self._shift).astype(np.intp), 1 << (32 - int(self._shift))
        counts = np.bincount(own, minlength=bins)
        self._below = np.cumsum(counts) - counts
        self._below[bins // 2 :] = 0  # negative values
        self._edge = np.full(bins, np.inf, dtype=np.float32)
        self._edge[own] = thresholds

    def __call__(self, values: npt.NDArray[np.float32]) -> npt.NDArray[np.intp]:
        """Return the band of each of the finite `values`; same shape."""
        if self._shift is None:
            # side="left": the number of thresholds strictly below the value; a tie is not above.
            found: npt.NDArray[np.intp] = np.searchsorted(self._search, values, side="left")
            return found
        narrow = np.ascontiguousarray(values, dtype=np.float32)
        bins = (narrow.view(np.uint32) >> self._shift).astype(np.intp)
        band: npt.NDArray[np.intp] = self._below.take(bins)
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
        flat_truth, flat_maps = truth.reshape(-1), maps.reshape(len(maps), truth.size)
        n_maps, bands = len(class_indices), self.thresholds.size + 1
        # Labels out of range and 255 get rows of their own after the others: quicker than picking
        # their pixels out.
        width = max(1, n_maps * bands)
        rows = np.full(256, (self.n_labels + 1) * width, dtype=np.intp)
        rows[: self.n_labels] = np.arange(self.n_labels) * width
        rows[IGNORE] = self.n_labels * width
        flat_counts = np.zeros((self.n_labels + 2) * width, dtype=np.int64)
        for start in range(0, flat_truth.size, _PART):
            part = slice(start, start + _PART)
            index = rows.take(self._as_uint8(flat_truth[part]).astype(np.intp))
            if n_maps:
                index += self._columns(flat_maps[:, part])
            flat_counts += np.bincount(index, minlength=flat_counts.size)
        counts = flat_counts.reshape(-1, width)
        if counts[self.n_labels + 1].any():
            raise self._unknown_label(flat_truth[flat_truth != IGNORE].max())
        counts = counts[: self.n_labels]
        if n_maps == 0:
            self.counts[:, 0, 0] += counts[:, 0]
        else:
            self.counts[:, np.asarray(class_indices) + 1] += counts.reshape(-1, n_maps, bands)

    def _columns(self, maps: npt.NDArray[np.float32]) -> npt.NDArray[np.intp]:
        """Return strongest class * bands + band of its value for maps (K, n)."""
        value, bands = maps[0], self.thresholds.size + 1
        column = np.zeros(maps.shape[1], dtype=np.intp)
        for position in range(1, len(maps)):
            # Strictly larger: of equal classes the first is the strongest.
            np.copyto(column, position * bands, where=maps[position] > value)
            value = np.maximum(value, maps[position])
        if not np.isfinite(value).all():
            raise ValueError("a map holds values that are not finite")
        column += self._bands(value)
        return column

    def _as_uint8(self, truth: npt.NDArray[np.integer]) -> npt.NDArray[np.uint8]:
        if truth.dtype != np.uint8 and (truth.min() < 0 or truth.max() > IGNORE):
            raise self._unknown_label(truth.min() if truth.min() < 0 else truth.max())
        narrow: npt.NDArray[np.uint8] = truth.astype(np.uint8, copy=False)
        return narrow

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
