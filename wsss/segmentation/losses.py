"""Segmentation losses: cross-entropy over the labelled pixels, at one or several input scales."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from wsss.data.images import IGNORE


def labelled_pixels(target: Tensor) -> Tensor:
    """Return how many pixels have a label, an int64 scalar."""
    return (target != IGNORE).sum()


def pixel_cross_entropy(
    logits: Tensor,
    target: Tensor,
    labelled: Tensor | None = None,
    label_smoothing: float = 0.0,
) -> Tensor:
    """Mean cross-entropy over the labelled pixels, at the target's resolution.

    Args:
        logits: (B, L, h, w) float; brought to the target's size bilinearly, in float32.
        target: (B, H, W) int64 labels 0..L-1; 255 is left out.
        labelled: Labelled pixels of the whole batch, of which this is a part: what it adds to the
            batch's mean is returned. None: this is the batch.
        label_smoothing: Share of each label that goes to all L labels alike.

    Returns:
        Scalar; 0 where nothing is labelled.
    """
    logits = F.interpolate(
        logits.float(), size=target.shape[1:], mode="bilinear", align_corners=False
    )
    # One row a pixel: the two-dimensional form of this loss has no deterministic CUDA kernel.
    rows = logits.permute(0, 2, 3, 1).reshape(-1, logits.shape[1])
    flat = target.reshape(-1)
    total = F.cross_entropy(
        rows, flat, ignore_index=IGNORE, reduction="sum", label_smoothing=label_smoothing
    )
    count = labelled_pixels(flat) if labelled is None else labelled
    return total / count.clamp(min=1)


def multi_scale_loss(
    network: Callable[[Tensor], Tensor],
    image: Tensor,
    target: Tensor,
    scales: Sequence[float],
    labelled: Tensor | None = None,
    label_smoothing: float = 0.0,
) -> Tensor:
    """Sum of the losses at each scale and of that of their maximum (DeepLabV2, PAMI 2018).

    Args:
        network: Image to logits.
        image: (B, 3, H, W) float, normalised.
        target: (B, H, W) int64.
        scales: Factors on the image, 1 first; with only one there is no maximum.
        labelled: Labelled pixels of the batch that this is a part of; None: this is the batch.
        label_smoothing: Share of each label that goes to all labels alike.

    Returns:
        Scalar, the sum of the losses.
    """
    all_logits = []
    for scale in scales:
        scaled = (
            image
            if scale == 1.0
            else F.interpolate(image, scale_factor=scale, mode="bilinear", align_corners=False)
        )
        all_logits.append(network(scaled))
    losses = [
        pixel_cross_entropy(logits, target, labelled, label_smoothing) for logits in all_logits
    ]
    if len(all_logits) > 1:
        size = all_logits[0].shape[2:]
        resized = [
            F.interpolate(logits.float(), size=size, mode="bilinear", align_corners=False)
            for logits in all_logits
        ]
        strongest = torch.stack(resized).amax(dim=0)
        losses.append(pixel_cross_entropy(strongest, target, labelled, label_smoothing))
    return torch.stack(losses).sum()
