"""Which background score a few masks would choose, and how sure they are of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from wsss.data.images import read_label
from wsss.errors import UserError
from wsss.evaluation.sweep import SweepCounts, as_thresholds
from wsss.runtime.progress import progress

SAMPLES = 1000
"""Bootstrap samples."""

FEW = 10
"""Of fewer masks the samples are too much alike for an interval to be one."""


@dataclass(frozen=True)
class Choice:
    """The background score that masks choose.

    Attributes:
        images: Images with a mask.
        configured: The configured score, and `configured_iou`, the mean IoU at it.
        best: The score of the highest mean IoU, and `best_iou`, that IoU; of equals the lowest.
        low: 2.5 % of bootstrap samples of the images choose a lower score.
        high: 2.5 % choose a higher one.
        gain_low: In 2.5 % of the samples the best score gains less than this over the configured
            one; `gain_high`: more.
    """

    images: int
    configured: float
    configured_iou: float
    best: float
    best_iou: float
    low: float
    high: float
    gain_low: float
    gain_high: float


@dataclass(frozen=True)
class _Counted:
    """Pixels of one image by background score, of the labels that are in mask or maps: (T, K)."""

    labels: npt.NDArray[np.int64]
    true: npt.NDArray[np.int64]
    in_truth: npt.NDArray[np.int64]
    predicted: npt.NDArray[np.int64]


class ImageCounts:
    """Pixels of each image by background score and label.

    Args:
        n_labels: Number of labels L, background included.
        n_values: Number of background scores T.
    """

    def __init__(self, n_labels: int, n_values: int) -> None:
        self._shape = n_values, n_labels
        self._images: list[_Counted] = []

    def __len__(self) -> int:
        return len(self._images)

    def add(self, counts: SweepCounts) -> None:
        """Add one image, counted alone."""
        matrices = np.stack([counts.confusion(i) for i in range(counts.thresholds.size)])
        true = np.diagonal(matrices, axis1=1, axis2=2)
        in_truth, predicted = matrices.sum(axis=2), matrices.sum(axis=1)
        labels = np.flatnonzero((in_truth + predicted).any(axis=0))
        parts = (np.ascontiguousarray(each[:, labels]) for each in (true, in_truth, predicted))
        self._images.append(_Counted(labels, *parts))

    def mean_iou(self, weights: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Return (B, T), the mean IoU where image n counts `weights[b, n]` times.

        As in every table, a label whose union is empty is out of the mean.
        """
        true, union = np.zeros((2, len(weights), *self._shape))
        for column, each in zip(weights.T, self._images, strict=True):
            times = column[:, None, None]
            true[..., each.labels] += times * each.true
            union[..., each.labels] += times * (each.in_truth + each.predicted - each.true)
        iou = np.divide(true, union, out=np.zeros_like(true), where=union > 0)
        defined = (union > 0).sum(axis=2)
        means: npt.NDArray[np.float64] = np.divide(
            iou.sum(axis=2), defined, out=np.zeros(defined.shape), where=defined > 0
        )
        return means


def count_images(
    store: Path, masks: Mapping[str, Path], n_classes: int, values: Sequence[float]
) -> ImageCounts:
    """Count a map store's images against their masks, at every background score.

    Args:
        store: Map store that has all of these images.
        masks: Image name -> label PNG.
        n_classes: Number of classes, without background.
        values: The background scores, ascending.

    Raises:
        UserError: A mask is no label PNG, or has another size than its image.
    """
    # Here, so that `wsss --help` of this command needs neither torch nor HDF5.
    from wsss.maps.map_store import MapStore, upsample

    counts = ImageCounts(n_classes + 1, len(values))
    with MapStore(store) as maps:
        how = str(maps.attributes["upsampling"])
        for name in progress(sorted(masks), total=len(masks), description="masks", unit="img"):
            stored, one = maps.read(name), SweepCounts(n_classes, as_thresholds(values))
            label = read_label(masks[name])
            try:
                found = upsample(stored.maps, stored.size, how)
                one.add(label, stored.class_indices, found)
            except ValueError as error:
                raise UserError(f"image {name}: {error}", where=masks[name]) from error
            counts.add(one)
    return counts


def choose(
    counts: ImageCounts, values: Sequence[float], configured: float, *, seed: int = 0
) -> Choice:
    """Choose the background score, and say how far other images might have chosen another.

    The interval is a percentile bootstrap over images (Efron 1979), whose pixels are anything but
    independent of each other.

    Args:
        counts: Counts of the images, at least one.
        values: The background scores, ascending.
        configured: One of them.
        seed: Of the samples.
    """
    images = len(counts)
    scores = np.asarray(as_thresholds(values), dtype=np.float64)
    overall = counts.mean_iou(np.ones((1, images)))[0]
    best, current = int(overall.argmax()), list(values).index(round(configured, 6))
    drawn = np.random.default_rng(seed).multinomial(
        images, np.full(images, 1 / images), size=SAMPLES
    )
    sampled = counts.mean_iou(drawn.astype(np.float64))
    low, high = np.percentile(scores[sampled.argmax(axis=1)], (2.5, 97.5), method="nearest")
    gain_low, gain_high = np.percentile(sampled[:, best] - sampled[:, current], (2.5, 97.5))
    return Choice(
        images=images,
        configured=values[current],
        configured_iou=float(overall[current]),
        best=values[best],
        best_iou=float(overall[best]),
        low=round(float(low), 6),
        high=round(float(high), 6),
        gain_low=float(gain_low),
        gain_high=float(gain_high),
    )


def describe(choice: Choice, key: str) -> str:
    """Return a choice in a sentence or two for people."""
    text = (
        f"{key}: {choice.images} masks choose {choice.best:g} (95 % interval {choice.low:g} to "
        f"{choice.high:g}), mIoU {100 * choice.best_iou:.1f}; configured is "
        f"{choice.configured:g}, mIoU {100 * choice.configured_iou:.1f}"
    )
    few = "" if choice.images >= FEW else f"; {choice.images} masks are too few for an interval"
    if choice.best == choice.configured:
        return text + few
    gain = f"{100 * choice.gain_low:+.1f} to {100 * choice.gain_high:+.1f}"
    sure = "" if choice.gain_low > 0 else ": these masks cannot tell whether it is better"
    return f"{text}; the gain, 95 %: {gain}{sure}{few}"
