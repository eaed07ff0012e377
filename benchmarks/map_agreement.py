"""How well class maps, labelled at a background score, agree with their pictures.

A label map and what a dense CRF makes of it differ where its edges lie beside the picture's; at the
score that suits the maps best, least has to be moved. No mask is looked at.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from wsss.data.crf import crf_from_label_maps
from wsss.data.crf_config import LabelCrfConfig
from wsss.maps.background import winner


def scaled_crf(settings: LabelCrfConfig, stride: float) -> LabelCrfConfig:
    """Return the CRF for pictures reduced by `stride`: its widths in pixels shrink with them."""
    return LabelCrfConfig(
        **{
            **dict(settings),
            "gaussian_sxy": settings.gaussian_sxy / stride,
            "bilateral_sxy": settings.bilateral_sxy / stride,
        }
    )


def label_agreement(
    first: npt.NDArray[np.integer], second: npt.NDArray[np.integer], n_labels: int
) -> float:
    """Return the mean IoU of two label maps over all labels; that of a label in neither is 0.

    The tags say that every class is in the picture, and nearly every picture has background: maps
    that agree on finding nothing of one agree on nothing.

    Args:
        first: (H, W) labels, 0..n_labels-1.
        second: The same.
        n_labels: How many labels there are.
    """
    pairs = np.bincount((first * n_labels + second).ravel(), minlength=n_labels**2)
    matrix = pairs.reshape(n_labels, n_labels)
    both = np.diagonal(matrix)
    union = matrix.sum(axis=0) + matrix.sum(axis=1) - both
    return float(np.mean(both / np.maximum(union, 1)))


def labels_at(
    maps: npt.NDArray[np.float32], scores: Sequence[float]
) -> list[npt.NDArray[np.int64]]:
    """Return the label map at each background score: 0, or 1 + the strongest class.

    Args:
        maps: (K, H, W) float32.
        scores: Background scores; a tie with one is background.
    """
    return [winner(maps, score) for score in scores]


def crf_agreement(
    image_u8: npt.NDArray[np.uint8],
    maps: npt.NDArray[np.float32],
    scores: Sequence[float],
    settings: LabelCrfConfig,
) -> npt.NDArray[np.float64]:
    """Return how well each score's label map agrees with what the CRF makes of it.

    Args:
        image_u8: (H, W, 3) uint8 RGB.
        maps: (K, H, W) float32 in 0..1, one a tagged class, K at least 1.
        scores: (T,) background scores.
        settings: The CRF, for pictures of this size.

    Returns:
        (T,) float64 in 0..1, `label_agreement` of each pair.
    """
    n_labels, found = len(maps) + 1, labels_at(maps, scores)
    refined = crf_from_label_maps(image_u8, found, n_labels, settings)
    pairs = zip(found, refined, strict=True)
    return np.array([label_agreement(first, second, n_labels) for first, second in pairs])
