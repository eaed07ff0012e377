"""From CLIP's gradients and attention to class maps, as in CLIP-ES.

Lin et al., CLIP is Also an Efficient Segmenter (CVPR 2023), and its public code. A class map is
Grad-CAM at the last block, spread over the picture by the encoder's own attention from within
boxes around its high values.
"""

from __future__ import annotations

import torch
from scipy import ndimage
from torch import Tensor

# What keeps the division finite where a map is constant.
EPSILON = 1e-7
SINKHORN_ROUNDS = 3


def min_max(maps: Tensor) -> Tensor:
    """Normalise maps (..., h, w) to 0..1, each by itself."""
    shifted = maps - maps.amin(dim=(-2, -1), keepdim=True)
    return shifted / (EPSILON + shifted.amax(dim=(-2, -1), keepdim=True))


def grad_cam(activation: Tensor, weights: Tensor, grid: tuple[int, int]) -> Tensor:
    """Return Grad-CAM maps in 0..1.

    Args:
        activation: (N, C) float32, patches row by row.
        weights: (K, C) float32, a weight a class and channel.
        grid: (h, w) with h * w = N.

    Returns:
        (K, h, w) float32. Normalised twice: where the raw maximum is near `EPSILON`, the first
        time leaves the peak well below 1.
    """
    raw = (weights @ activation.T).reshape(-1, *grid)
    return min_max(min_max(raw.relu()))


def balance_(attention: Tensor) -> Tensor:
    """Bring rows and columns of (N, N) attention near a sum of 1, in place (Sinkhorn's rounds).

    Each round divides the columns, then the rows, by their sums.
    """
    for _ in range(SINKHORN_ROUNDS):
        attention /= attention.sum(dim=0, keepdim=True)
        attention /= attention.sum(dim=1, keepdim=True)
    return attention


def spread(balanced: Tensor, maps: Tensor) -> Tensor:
    """Spread maps along the affinity A = S @ S with S the mean of `balanced` and its transpose.

    Two products with S for each map rather than one of S with itself: N^2 a map instead of N^3,
    and no other N x N matrix.

    Args:
        balanced: (N, N) float32.
        maps: (K, h, w) float32, h * w = N.

    Returns:
        A @ map for each, (K, h, w).
    """
    flat = maps.flatten(1).T
    for _ in range(2):
        flat = (balanced @ flat + balanced.T @ flat) / 2
    return flat.T.reshape(maps.shape)


def box_mask(cam: Tensor, threshold: float, *, far_edge: bool) -> Tensor:
    """Return where a map is within the bounding box of a region of high values.

    Regions are 8-connected; their values, as 8-bit numbers, exceed `threshold` of the largest.

    Args:
        cam: (h, w) float32 in 0..1.
        threshold: Share of the largest value, 0..1.
        far_edge: Whether boxes reach the last row and column. In the public code they never do.

    Returns:
        (h, w) bool, on the CPU.
    """
    values = (cam.cpu() * 255).to(torch.uint8)
    high = values > int(threshold * int(values.max()))
    labels, _ = ndimage.label(high.numpy(), structure=[[1] * 3] * 3)
    mask = torch.zeros(cam.shape, dtype=torch.bool)
    bottom, right = cam.shape if far_edge else (cam.shape[0] - 1, cam.shape[1] - 1)
    for rows, columns in ndimage.find_objects(labels):
        mask[rows.start : min(rows.stop, bottom), columns.start : min(columns.stop, right)] = True
    return mask


def refine(cams: Tensor, balanced: Tensor, *, threshold: float, far_edge: bool) -> Tensor:
    """Spread Grad-CAM maps over the picture from within their boxes.

    Args:
        cams: (K, h, w) float32 in 0..1, of `grad_cam`.
        balanced: (N, N) float32, of `balance_`.
        threshold: Of the boxes.
        far_edge: Whether boxes reach the last row and column.

    Returns:
        (K, h, w) float32, not normalised; all 0 where a map has no box.
    """
    masks = torch.stack([box_mask(cam, threshold, far_edge=far_edge) for cam in cams])
    return spread(balanced, cams * masks.to(cams.device))
