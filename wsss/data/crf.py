"""Dense CRF (Krähenbühl and Koltun, NIPS 2011): refine label maps and class probabilities.

A thin layer over pydensecrf2, which holds the GIL: for several images at once use processes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from wsss.data.crf_config import CrfConfig, LabelCrfConfig
from wsss.errors import UserError

Array = npt.NDArray[Any]


def crf_from_label_maps(
    image_u8: Array,
    label_maps: Sequence[Array],
    n_labels: int,
    settings: LabelCrfConfig,
) -> list[npt.NDArray[np.int64]]:
    """Refine complete label maps of one image, each by itself.

    A pixel trusts its own label with probability `settings.gt_prob`. The kernels depend on the
    image alone, so they are built once for all maps; that changes no bit of the results.

    Args:
        image_u8: (H, W, 3) uint8 RGB.
        label_maps: (H, W) integers in 0..n_labels-1 each; there is no "unsure" label.
        n_labels: How many labels compete; with one there is nothing to decide.
        settings: Kernels, iterations, and the probability of a pixel's own label; the others
            share the rest.

    Returns:
        For each the most probable labels, (H, W) int64; a tie goes to the smaller label.

    Raises:
        UserError: Shapes or label values are impossible.
    """
    image = _checked_image(image_u8)
    maps = [_checked_labels(label_map, image, n_labels) for label_map in label_maps]
    if n_labels == 1:
        return maps
    crf, gt_prob = _model(image, n_labels, settings), settings.gt_prob
    refined = []
    for labels in maps:
        energy = np.full(
            (n_labels, *labels.shape), -np.log((1 - gt_prob) / (n_labels - 1)), dtype=np.float32
        )
        np.put_along_axis(energy, labels[None], np.float32(-np.log(gt_prob)), axis=0)
        marginals = _mean_field(crf, energy, settings.iterations)
        refined.append(np.asarray(np.argmax(marginals, axis=0), dtype=np.int64))
    return refined


def _checked_labels(
    label_map: Array, image: npt.NDArray[np.uint8], n_labels: int
) -> npt.NDArray[np.int64]:
    if label_map.shape != image.shape[:2]:
        raise UserError(
            f"a label map of shape {label_map.shape} does not fit an image of {image.shape[:2]}",
            expected="the same height and width",
        )
    labels = np.ascontiguousarray(label_map, dtype=np.int64)
    if labels.min() < 0 or labels.max() >= n_labels:
        raise UserError(
            f"label values run from {labels.min()} to {labels.max()}",
            expected=f"0 to {n_labels - 1}",
        )
    return labels


def crf_from_probabilities(
    image_u8: Array, probs: Array, settings: CrfConfig
) -> npt.NDArray[np.float32]:
    """Refine class probabilities (a softmax): the unary energy is their negative logarithm.

    Args:
        image_u8: (H, W, 3) uint8 RGB.
        probs: (K, H, W) float32 in 0..1, one map a class.
        settings: Kernels and iterations.

    Returns:
        (K, H, W) float32 marginals that sum to 1 over K.

    Raises:
        UserError: Shapes are impossible.
    """
    image = _checked_image(image_u8)
    if probs.ndim != 3 or probs.shape[1:] != image.shape[:2]:
        raise UserError(
            f"probabilities of shape {probs.shape} do not fit an image of {image.shape[:2]}",
            expected="(classes, height, width) with the image's height and width",
        )
    # Below 1e-5 the energy is cut off, so that a hard zero can still be outvoted.
    energy = -np.log(np.clip(np.asarray(probs, dtype=np.float32), 1e-5, 1.0))
    crf = _model(image, len(energy), settings)
    return _mean_field(crf, energy, settings.iterations)


def _checked_image(image_u8: Array) -> npt.NDArray[np.uint8]:
    if image_u8.ndim != 3 or image_u8.shape[2] != 3 or image_u8.dtype != np.uint8:
        raise UserError(
            f"the dense CRF got an image of shape {image_u8.shape}, type {image_u8.dtype}",
            expected="(height, width, 3), uint8",
        )
    return np.ascontiguousarray(image_u8)


def _model(
    image: npt.NDArray[np.uint8], n_labels: int, settings: CrfConfig | LabelCrfConfig
) -> Any:
    """Return the library's model of an image: its kernels, no unary energy yet."""
    # Imported here: it is a compiled extension that most commands never need.
    from pydensecrf import densecrf

    height, width = image.shape[:2]
    crf = densecrf.DenseCRF2D(width, height, n_labels)
    crf.addPairwiseGaussian(sxy=settings.gaussian_sxy, compat=settings.gaussian_compat)
    crf.addPairwiseBilateral(
        sxy=settings.bilateral_sxy,
        srgb=settings.bilateral_srgb,
        rgbim=image,
        compat=settings.bilateral_compat,
    )
    return crf


def _mean_field(
    crf: Any, energy: npt.NDArray[np.float32], iterations: int
) -> npt.NDArray[np.float32]:
    """Return marginals (n_labels, H, W) of a model under a unary energy of that shape."""
    crf.setUnaryEnergy(np.ascontiguousarray(energy.reshape(len(energy), -1), dtype=np.float32))
    return np.array(crf.inference(iterations), dtype=np.float32).reshape(energy.shape)
