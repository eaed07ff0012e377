"""Background scores chosen without masks, from the values of class maps alone.

All look at the largest class value of each pixel, 0..1, since nothing else decides whether a pixel
is background, and choose among the same ascending scores. `choose_score` is what `auto` stands for;
`benchmarks/background_choice.py` compares all with the scores that masks choose.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from wsss.maps.background import PowerBackground, threshold_of

Counts = npt.NDArray[np.int64]

SCORES: tuple[float, ...] = tuple(round(0.01 * i, 2) for i in range(1, 100))
"""The background scores that are chosen among."""
METHOD = "quadratic mean of the maps"
"""What chooses that of CAMs, in words."""
EDGE_METHOD = "mean at the edges of the maps"
"""What chooses that of walked maps, in words."""
ALPHA = 1.0
"""Exponent of `power_score`."""
SHARE = 0.4
"""The objects' share of the pixels in `object_area`."""


def choose_score(maps: Iterable[npt.NDArray[np.float32]]) -> tuple[float, float]:
    """Choose the background score of many images' maps, by `quadratic_mean`.

    Args:
        maps: (K, h, w) float32 in 0..1 of each image, all at the same stride; without a class all
            of an image is background.

    Returns:
        One of `SCORES`, and the share of all pixels above it.

    Raises:
        ValueError: There are no maps.
    """
    counts = np.zeros(len(SCORES) + 1, dtype=np.int64)
    for each in maps:
        counts += band_counts(each.max(axis=0, initial=0.0), SCORES)
    if not counts.any():
        raise ValueError("no maps to choose a background score by")
    score = quadratic_mean(counts, SCORES)
    return score, float(object_share(counts)[SCORES.index(score)])


def edge_score(maps: Iterable[npt.NDArray[np.float32]]) -> float:
    """Return the score nearest to the mean of the values where they change.

    Each value v counts by the square of its gradient: where a map is steep, the score runs through
    the middle of the slope. Kittler, Illingworth and Föglein, *Threshold selection based on a
    simple image statistic*, CVGIP 1985, whose weight is the gradient itself.

    Args:
        maps: (K, h, w) float32 in 0..1 of each image, h and w at least 1, all at one stride.

    Returns:
        One of `SCORES`; 0.5 where no map has a slope.
    """
    total = weighted = 0.0
    for each in maps:
        # A border of its own values has no slope, and makes one pixel a map.
        value = np.pad(each.max(axis=0, initial=0.0).astype(np.float64), 1, mode="edge")
        rows, columns = np.gradient(value)
        weight = (rows**2 + columns**2)[1:-1, 1:-1]
        total += float(weight.sum())
        weighted += float((weight * value[1:-1, 1:-1]).sum())
    return _nearest(weighted / total if total > 0 else 0.5, SCORES)


def band_counts(values: npt.NDArray[np.float32], scores: Sequence[float]) -> Counts:
    """Count values by band: band b holds those above exactly b of the scores.

    Args:
        values: The largest class value of pixels, any shape.
        scores: (T,) background scores, ascending; a tie with one is background.

    Returns:
        (T + 1,) int64.
    """
    bands = np.searchsorted(np.asarray(scores, np.float32), values.ravel(), side="left")
    return np.bincount(bands, minlength=len(scores) + 1)


def object_share(counts: Counts) -> npt.NDArray[np.float64]:
    """Return the share of values above each score, (T,) float64, never rising.

    Args:
        counts: (T + 1,) values by band, one of them at least.
    """
    above = counts[::-1].cumsum()[::-1][1:]
    return np.asarray(above / counts.sum(), dtype=np.float64)


def decision_boundary(scores: Sequence[float]) -> float:
    """Return the score at which a map's class logit is 0.

    A CAM is the logit's map, less its bias: above 0 it speaks for the class. The export takes its
    positive part, divided by its range, so that this place is the lowest score, whatever the map;
    where the classifier has a bias, a map store does not hold by how much it moves the boundary.
    """
    return min(scores)


def power_score(scores: Sequence[float], alpha: float = ALPHA) -> float:
    """Return the score nearest to where (1 - v)^alpha = v (CLIP-ES, CVPR 2023)."""
    return _nearest(threshold_of(PowerBackground(alpha=alpha)), scores)


def otsu(counts: Counts, scores: Sequence[float]) -> float:
    """Return the score that separates the values with the largest variance between both parts.

    Otsu, *A threshold selection method from gray-level histograms*, IEEE Trans. SMC 1979.

    Args:
        counts: (T + 1,) values by band.
        scores: (T,) ascending.
    """
    below, above, low, high = _parts(counts, scores)
    return _best(scores, below * above * (high - low) ** 2)


def minimum_error(counts: Counts, scores: Sequence[float]) -> float:
    """Return the score at which two normal distributions, one a side, explain the values best.

    Kittler and Illingworth, *Minimum error thresholding*, Pattern Recognition 1986, eq. 15.

    Args:
        counts: (T + 1,) values by band.
        scores: (T,) ascending.
    """
    below, above, low, high = _parts(counts, scores)
    squares = _parts(counts, scores, power=2)
    width = float(np.diff(scores).min(initial=1.0))
    # A part narrower than a band has no measured variance; that of a uniform band stands for it.
    least = width**2 / 12
    fit = np.zeros(len(scores))
    for share, mean, square in ((below, low, squares[2]), (above, high, squares[3])):
        deviation = np.sqrt(np.maximum(square - mean**2, least))
        known = np.maximum(share, np.finfo(np.float64).tiny)
        fit += share * (np.log(deviation) - np.log(known))
    fit[(below == 0) | (above == 0)] = np.inf
    return _best(scores, -fit)


def calibrated_area(counts: Counts, scores: Sequence[float]) -> float:
    """Return the lowest score above which no more of the pixels lie than the values' mean.

    Were the values probabilities of an object, their mean would be the objects' share.

    Args:
        counts: (T + 1,) values by band.
        scores: (T,) ascending.
    """
    mean = float((counts * _centres(scores)).sum() / counts.sum())
    return object_area(counts, scores, mean)


def mean_value(counts: Counts, scores: Sequence[float]) -> float:
    """Return the score nearest to the mean of all values.

    Glasbey, *An analysis of histogram-based thresholding algorithms*, CVGIP 1993.

    Args:
        counts: (T + 1,) values by band.
        scores: (T,) ascending.
    """
    return _nearest(float((counts * _centres(scores)).sum() / counts.sum()), scores)


def quadratic_mean(counts: Counts, scores: Sequence[float]) -> float:
    """Return the score nearest to the root of the values' mean square.

    Args:
        counts: (T + 1,) values by band.
        scores: (T,) ascending.
    """
    squares = counts * _centres(scores) ** 2
    return _nearest(float(np.sqrt(squares.sum() / counts.sum())), scores)


def object_area(counts: Counts, scores: Sequence[float], share: float = SHARE) -> float:
    """Return the lowest score above which no more than a fixed share of the pixels lies.

    Args:
        counts: (T + 1,) values by band.
        scores: (T,) ascending.
        share: That share, 0..1.
    """
    return float(scores[int(np.argmax(np.append(object_share(counts)[:-1] <= share, True)))])


def _nearest(wanted: float, scores: Sequence[float]) -> float:
    return min(scores, key=lambda score: abs(score - wanted))


def _centres(scores: Sequence[float]) -> npt.NDArray[np.float64]:
    """Return (T + 1,) the middle of every band; the values lie in 0..1."""
    edges = np.concatenate([[min(0.0, scores[0])], scores, [max(1.0, scores[-1])]])
    return np.asarray((edges[:-1] + edges[1:]) / 2, dtype=np.float64)


def _parts(
    counts: Counts, scores: Sequence[float], *, power: int = 1
) -> tuple[npt.NDArray[np.float64], ...]:
    """Return, for each score, the shares of values at or below it and above it, and both means.

    The means are of a power of the values; of no values it is 0.
    """
    total = counts.sum()
    weighted = counts * _centres(scores) ** power
    below = counts.cumsum()[:-1]
    sums = weighted.cumsum()
    above, rest = total - below, sums[-1] - sums[:-1]
    return (
        below / total,
        above / total,
        np.divide(sums[:-1], below, out=np.zeros(len(below)), where=below > 0),
        np.divide(rest, above, out=np.zeros(len(below)), where=above > 0),
    )


def _best(scores: Sequence[float], quality: npt.NDArray[np.float64]) -> float:
    """Return the score of the highest quality; the lowest of equals."""
    return float(scores[int(np.argmax(quality))])
