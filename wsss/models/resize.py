"""Bilinear resizing, align_corners off, with a deterministic form for GPUs."""

from __future__ import annotations

import functools

import torch
import torch.nn.functional as F
from torch import Tensor


def resize_bilinear(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize (B, C, h, w) to `size` (height, width), bilinearly; a no-op at that size.

    On CUDA under deterministic algorithms PyTorch's own backward pass sorts one index per output
    element, gigabytes for a full-size feature; two small matrix products give the same values,
    gradients included, in a fixed order.
    """
    if tuple(x.shape[-2:]) == tuple(size):
        return x
    if x.is_cuda and torch.are_deterministic_algorithms_enabled():
        return resize_by_matrices(x, size)
    return F.interpolate(x, size=size, mode="bilinear", align_corners=False)


def resize_by_matrices(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize (B, C, h, w) to `size` as rows (H, h) times x times columns (w, W)."""
    rows = _weights(x.shape[-2], size[0], x.device, x.dtype)
    columns = _weights(x.shape[-1], size[1], x.device, x.dtype)
    return rows @ (x @ columns.mT)


@functools.lru_cache(maxsize=64)
def _weights(source: int, target: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Return the (target, source) matrix of bilinear weights along one side."""
    # Kept for later calls, which may need gradient even if this one does not.
    with torch.inference_mode(False), torch.no_grad():
        centre = (torch.arange(target, dtype=torch.float64) + 0.5) * source / target - 0.5
        centre = centre.clamp(min=0)
        low = centre.floor().long().clamp(max=source - 1)
        high = (low + 1).clamp(max=source - 1)
        share = centre - low
        index = torch.arange(source)
        matrix = (index == low[:, None]) * (1 - share)[:, None]
        matrix = matrix + (index == high[:, None]) * share[:, None]
        return matrix.to(device=device, dtype=dtype)
