"""Class probabilities of whole images: several scales, each mirrored, averaged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from wsss.data.images import read_image
from wsss.data.transforms import image_to_tensor, normalise, resize
from wsss.models.deeplab import DeepLab
from wsss.training.compute import Precision, autocast


@dataclass(frozen=True)
class Views:
    """An image at all scales, on the CPU.

    Attributes:
        size: (H, W) of the image.
        images: One (3, h, w) uint8 tensor a scale.
    """

    size: tuple[int, int]
    images: tuple[Tensor, ...]


def load_views(path: str, scales: Sequence[float]) -> Views:
    """Read an image and resize it to each scale; needs no device, so it can run ahead."""
    image = image_to_tensor(read_image(path))
    height, width = image.shape[1:]
    sizes = [(max(1, round(height * s)), max(1, round(width * s))) for s in scales]
    return Views((height, width), tuple(resize(image, size) for size in sizes))


def pad_to_multiple(image: Tensor, stride: int) -> Tensor:
    """Pad (B, C, H, W) with zeros at the right and bottom to multiples of `stride`."""
    height, width = image.shape[2:]
    return F.pad(image, (0, -width % stride, 0, -height % stride))


def view_probabilities(network: DeepLab, image: Tensor, size: tuple[int, int]) -> Tensor:
    """Return the probabilities of normalised images at another size.

    Args:
        network: In eval mode.
        image: (B, 3, h, w) float, normalised.
        size: (H, W) of the result.

    Returns:
        (B, n_labels, H, W) float32, summing to 1 over the labels.
    """
    height, width = image.shape[2:]
    padded = pad_to_multiple(image, network.padding_stride)
    padded = padded.contiguous(memory_format=torch.channels_last)
    logits = network(padded).float()
    # First to the size of what was padded, so that the padding can be cut off exactly.
    logits = F.interpolate(logits, size=padded.shape[2:], mode="bilinear", align_corners=False)[
        ..., :height, :width
    ]
    if (height, width) != size:
        logits = F.interpolate(logits, size=size, mode="bilinear", align_corners=False)
    return logits.softmax(dim=1)


@torch.inference_mode()
def class_probabilities(
    network: DeepLab, views: Views, *, mirror: bool, precision: Precision, device: torch.device
) -> Tensor:
    """Return the mean probabilities over scales and mirror images.

    Args:
        network: In eval mode, on `device`.
        views: The image at all scales.
        mirror: See every scale mirrored too; both go through the network as one batch.
        precision: Type of the network's arithmetic.
        device: Where to compute.

    Returns:
        (n_labels, H, W) float32 on the device, at the image's size.
    """
    total: Tensor | None = None
    normalisation = network.backbone.normalisation
    for view in views.images:
        image = normalise(view.to(device)[None].float().div_(255), normalisation)
        if mirror:
            image = torch.cat([image, image.flip(-1)])
        with autocast(device, precision):
            probabilities = view_probabilities(network, image, views.size)
        if mirror:
            probabilities = (probabilities[:1] + probabilities[1:].flip(-1)) / 2
        total = probabilities[0] if total is None else total + probabilities[0]
    if total is None:
        raise ValueError("no views")
    return total / len(views.images)
