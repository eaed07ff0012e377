"""CAMs of one image at full quality: several scales, each with its mirror image."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from wsss.data.map_store import map_size
from wsss.data.transforms import image_to_tensor, normalise, resize
from wsss.models.backbones import Normalisation

# What keeps the division finite where a map is constant.
EPSILON = 1e-5


def views(image: np.ndarray, scales: Sequence[float]) -> list[Tensor]:
    """Return `image` (H, W, 3) uint8 at each scale, as (3, h, w) uint8 tensors."""
    height, width = image.shape[:2]
    tensor = image_to_tensor(image)
    return [resize(tensor, (max(1, round(height * s)), max(1, round(width * s)))) for s in scales]


def normalise_maps(maps: Tensor) -> Tensor:
    """Max-min normalise non-negative maps (..., h, w) to 0..1, each by itself.

    relu(a - min - 1e-5) / (max - min + 1e-5), as in the training step (ACR, CVPR 2023).
    """
    low = maps.amin(dim=(-2, -1), keepdim=True)
    high = maps.amax(dim=(-2, -1), keepdim=True)
    return F.relu(maps - low - EPSILON) / (high - low + EPSILON)


def multi_scale_cam(
    cam_logits: Callable[[Tensor], Tensor],
    images: Sequence[Tensor],
    *,
    size: tuple[int, int],
    class_indices: Sequence[int],
    normalisation: Normalisation,
    mirror: bool,
    device: torch.device,
) -> Tensor:
    """Sum the CAMs of all views of one image and normalise them.

    Per view: bilinear to the stored size, ReLU, mirrored back; then the sum over views, of the
    image's labelled classes only, max-min normalised per class.

    Args:
        cam_logits: From a normalised (B, 3, h, w) batch to raw CAM logits (B, C, h', w').
        images: Views as (3, h, w) uint8.
        size: (H, W) of the original image.
        class_indices: Labelled classes, positions in the class list.
        normalisation: The network's.
        mirror: Whether to add each view's mirror image.
        device: Where to compute.

    Returns:
        (K, (H-1)//4+1, (W-1)//4+1) float32 in 0..1, on `device`.
    """
    target = map_size(*size)
    wanted = torch.as_tensor(list(class_indices), dtype=torch.int64, device=device)
    total = torch.zeros(len(class_indices), *target, device=device)
    for image in images:
        batch = image.to(device)[None].to(torch.float32).div_(255)
        batch = normalise(batch, normalisation)
        if mirror:
            batch = torch.cat([batch, batch.flip(-1)])
        batch = batch.contiguous(memory_format=torch.channels_last)
        # Only the tagged classes are enlarged: with 80 classes that is most of the work saved.
        raw = cam_logits(batch).index_select(1, wanted).float()
        maps = F.relu(F.interpolate(raw, size=target, mode="bilinear", align_corners=False))
        total += maps[0]
        if mirror:
            total += maps[1].flip(-1)
    return normalise_maps(total)
