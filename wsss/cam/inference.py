"""CAMs of one image at full quality: several scales, each with its mirror image."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from wsss.data.transforms import image_to_tensor, normalise, resize
from wsss.maps.map_store import map_size
from wsss.models.backbones import Normalisation

# What keeps the division finite where a map is constant.
EPSILON = 1e-5

V = TypeVar("V")


def view_size(size: tuple[int, int], scale: float, multiple: int = 1) -> tuple[int, int]:
    """Return (height, width) of a view: each side scaled, to the nearest `multiple`, at least one.

    A network that needs multiples gets the image resized, as MCTformer does, rather than padded:
    no border is made up that attention could look at, and the mirror image stays one.
    """
    height, width = (max(1, round(side * scale / multiple)) * multiple for side in size)
    return height, width


def views(image: np.ndarray, scales: Sequence[float], multiple: int = 1) -> list[Tensor]:
    """Return `image` (H, W, 3) uint8 at each scale, as (3, h, w) uint8 tensors."""
    size = (image.shape[0], image.shape[1])
    tensor = image_to_tensor(image)
    return [resize(tensor, view_size(size, scale, multiple)) for scale in scales]


def view_batch(
    image: Tensor, normalisation: Normalisation, *, mirror: bool, device: torch.device
) -> Tensor:
    """Return a (3, h, w) uint8 view, and its mirror image if wanted, as a network's input."""
    batch = image.to(device)[None].to(torch.float32).div_(255)
    batch = normalise(batch, normalisation)
    if mirror:
        batch = torch.cat([batch, batch.flip(-1)])
    return batch.contiguous(memory_format=torch.channels_last)


def normalise_maps(maps: Tensor, epsilon: float = EPSILON) -> Tensor:
    """Max-min normalise non-negative maps (..., h, w) to 0..1, each by itself.

    relu(a - min - e) / (max - min + e), with e = 1e-5 as in the training step (ACR, CVPR 2023).
    """
    low = maps.amin(dim=(-2, -1), keepdim=True)
    high = maps.amax(dim=(-2, -1), keepdim=True)
    return F.relu(maps - low - epsilon) / (high - low + epsilon)


def multi_scale_cam(
    cam_of: Callable[[V], Tensor],
    images: Sequence[V],
    *,
    size: tuple[int, int],
    mirror: bool,
    epsilon: float = EPSILON,
    normalise: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """Sum the CAMs of all views of one image and normalise them.

    Per view: bilinear to the stored size, ReLU, mirrored back; then the sum over views, max-min
    normalised per class.

    Args:
        cam_of: From a view to the CAMs of the K classes wanted, (1 or 2, K, h', w'), the second
            of the mirror image.
        images: Views, at least one.
        size: (H, W) of the original image.
        mirror: Whether `cam_of` gives the mirror image's CAMs, too.
        epsilon: What the normalisation takes for nothing.
        normalise: Another normalisation, of (K, h, w) maps that are not negative.

    Returns:
        (K, (H-1)//4+1, (W-1)//4+1) float32 in 0..1.
    """
    target = map_size(*size)
    total: Tensor | None = None
    for image in images:
        raw = cam_of(image).float()
        maps = F.relu(F.interpolate(raw, size=target, mode="bilinear", align_corners=False))
        summed = maps[0] + maps[1].flip(-1) if mirror else maps[0]
        total = summed if total is None else total + summed
    assert total is not None
    return normalise_maps(total, epsilon) if normalise is None else normalise(total)
