"""Dense CRF (Krähenbühl and Koltun, NIPS 2011): refine label maps and class probabilities.

A thin layer over pydensecrf2, which holds the GIL: for several images at once use processes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from wsss.errors import UserError

Array = npt.NDArray[Any]


def crf_from_labels(
    image_u8: Array,
    label_map: Array,
    n_labels: int,
    *,
    gt_prob: float,
    gaussian_sxy: float,
    gaussian_compat: float,
    bilateral_sxy: float,
    bilateral_srgb: float,
    bilateral_compat: float,
    iterations: int,
) -> npt.NDArray[np.int64]:
    """Refine a complete label map: each pixel trusts its own label with probability `gt_prob`.

    Args:
        image_u8: (H, W, 3) uint8 RGB.
        label_map: (H, W) integers in 0..n_labels-1; there is no "unsure" label.
        n_labels: How many labels compete; with one there is nothing to decide.
        gt_prob: Probability of a pixel's own label, in (0, 1); the others share the rest.
        gaussian_sxy: Width of the smoothness kernel, in pixels.
        gaussian_compat: Potts weight of the smoothness kernel.
        bilateral_sxy: Spatial width of the appearance kernel, in pixels.
        bilateral_srgb: Colour width of the appearance kernel, in grey levels (0..255).
        bilateral_compat: Potts weight of the appearance kernel.
        iterations: Mean-field iterations.

    Returns:
        (H, W) int64, the most probable label; a tie goes to the smaller label.

    Raises:
        UserError: Shapes, label values or `gt_prob` are impossible.
    """
    image = _checked_image(image_u8)
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
    if not 0 < gt_prob < 1:
        raise UserError(f"gt_prob is {gt_prob}", expected="a number between 0 and 1, both excluded")
    if n_labels == 1:
        return labels
    energy = np.full(
        (n_labels, *labels.shape), -np.log((1 - gt_prob) / (n_labels - 1)), dtype=np.float32
    )
    np.put_along_axis(energy, labels[None], np.float32(-np.log(gt_prob)), axis=0)
    marginals = _mean_field(
        image,
        energy,
        gaussian=(gaussian_sxy, gaussian_compat),
        bilateral=(bilateral_sxy, bilateral_srgb, bilateral_compat),
        iterations=iterations,
    )
    return np.asarray(np.argmax(marginals, axis=0), dtype=np.int64)


def crf_from_probabilities(
    image_u8: Array,
    probs: Array,
    *,
    gaussian_sxy: float,
    gaussian_compat: float,
    bilateral_sxy: float,
    bilateral_srgb: float,
    bilateral_compat: float,
    iterations: int,
) -> npt.NDArray[np.float32]:
    """Refine class probabilities (a softmax): the unary energy is their negative logarithm.

    Args:
        image_u8: (H, W, 3) uint8 RGB.
        probs: (K, H, W) float32 in 0..1, one map a class.
        gaussian_sxy: Width of the smoothness kernel, in pixels.
        gaussian_compat: Potts weight of the smoothness kernel.
        bilateral_sxy: Spatial width of the appearance kernel, in pixels.
        bilateral_srgb: Colour width of the appearance kernel, in grey levels (0..255).
        bilateral_compat: Potts weight of the appearance kernel.
        iterations: Mean-field iterations.

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
    return _mean_field(
        image,
        energy,
        gaussian=(gaussian_sxy, gaussian_compat),
        bilateral=(bilateral_sxy, bilateral_srgb, bilateral_compat),
        iterations=iterations,
    )


def _checked_image(image_u8: Array) -> npt.NDArray[np.uint8]:
    if image_u8.ndim != 3 or image_u8.shape[2] != 3 or image_u8.dtype != np.uint8:
        raise UserError(
            f"the dense CRF got an image of shape {image_u8.shape}, type {image_u8.dtype}",
            expected="(height, width, 3), uint8",
        )
    return np.ascontiguousarray(image_u8)


def _mean_field(
    image: npt.NDArray[np.uint8],
    energy: npt.NDArray[np.float32],
    *,
    gaussian: tuple[float, float],
    bilateral: tuple[float, float, float],
    iterations: int,
) -> npt.NDArray[np.float32]:
    # Imported here: it is a compiled extension that most commands never need.
    from pydensecrf import densecrf

    n_labels, height, width = energy.shape
    crf = densecrf.DenseCRF2D(width, height, n_labels)
    crf.setUnaryEnergy(np.ascontiguousarray(energy.reshape(n_labels, -1), dtype=np.float32))
    crf.addPairwiseGaussian(sxy=gaussian[0], compat=gaussian[1])
    crf.addPairwiseBilateral(sxy=bilateral[0], srgb=bilateral[1], rgbim=image, compat=bilateral[2])
    marginals = np.array(crf.inference(iterations), dtype=np.float32)
    return marginals.reshape(n_labels, height, width)
