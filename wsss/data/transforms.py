"""Augmentation for training, each draw taken from the generator it is handed.

Images travel as (3, H, W) uint8 RGB tensors until the crop, which turns them into float32 in
0..1 together with a mask of the pixels that are real. Padding becomes zero *after* normalisation,
so every network can normalise in its own way and still see zeros there.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from wsss.data.images import IGNORE
from wsss.models.backbones import Normalisation


@dataclass(frozen=True)
class Crop:
    """A square crop.

    Attributes:
        image: (3, S, S) float32 in 0..1, zero where not `valid`.
        valid: (1, S, S) bool, false on padding.
        target: (S, S) int64 labels, 255 on padding; None when no labels were given.
    """

    image: Tensor
    valid: Tensor
    target: Tensor | None


def image_to_tensor(image: np.ndarray) -> Tensor:
    """Turn (H, W, 3) uint8 into a (3, H, W) uint8 tensor."""
    return torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)


def label_to_tensor(label: np.ndarray) -> Tensor:
    """Turn (H, W) uint8 labels into a (1, H, W) uint8 tensor, the form the transforms take."""
    return torch.from_numpy(np.ascontiguousarray(label))[None]


def resize(image: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize (3, H, W) uint8 to `size` (height, width), bicubic with antialiasing."""
    if tuple(image.shape[-2:]) == size:
        return image
    # One picture of a batch whose pixels lie as the picture's do, so that the result's do, too.
    batch = image.permute(1, 2, 0)[None].permute(0, 3, 1, 2)
    return F.interpolate(batch, size=size, mode="bicubic", antialias=True)[0]


def resize_label(label: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize (1, H, W) labels to `size` (height, width), nearest."""
    if tuple(label.shape[-2:]) == size:
        return label
    return F.interpolate(label[None], size=size, mode="nearest-exact")[0]


def random_long_side(
    image: Tensor, label: Tensor | None, shortest: int, longest: int, rng: np.random.Generator
) -> tuple[Tensor, Tensor | None]:
    """Resize so that the long side is drawn uniformly from the integers shortest..longest."""
    length = int(rng.integers(shortest, longest + 1))
    height, width = image.shape[-2:]
    factor = length / max(height, width)
    size = (max(1, round(height * factor)), max(1, round(width * factor)))
    return resize(image, size), None if label is None else resize_label(label, size)


def random_scale(
    image: Tensor, label: Tensor | None, smallest: float, largest: float, rng: np.random.Generator
) -> tuple[Tensor, Tensor | None]:
    """Resize both sides by one factor drawn uniformly from smallest..largest."""
    factor = float(rng.uniform(smallest, largest))
    height, width = image.shape[-2:]
    size = (max(1, round(height * factor)), max(1, round(width * factor)))
    return resize(image, size), None if label is None else resize_label(label, size)


def random_flip(
    image: Tensor, label: Tensor | None, rng: np.random.Generator
) -> tuple[Tensor, Tensor | None]:
    """Mirror left-right with probability one half."""
    if rng.random() < 0.5:
        return image.flip(-1), None if label is None else label.flip(-1)
    return image, label


def _window(length: int, size: int, rng: np.random.Generator) -> tuple[int, int, int]:
    """Return (start in the image, start in the crop, extent) along one side."""
    if length >= size:
        return int(rng.integers(0, length - size + 1)), 0, size
    return 0, int(rng.integers(0, size - length + 1)), length


def random_crop(image: Tensor, label: Tensor | None, size: int, rng: np.random.Generator) -> Crop:
    """Cut a random `size` x `size` window; a shorter side is padded at a random offset.

    Args:
        image: (3, H, W) uint8.
        label: (1, H, W) uint8, or None.
        size: Side of the crop in pixels.
        rng: Source of the two offsets.
    """
    height, width = image.shape[-2:]
    top, into_top, rows = _window(height, size, rng)
    left, into_left, columns = _window(width, size, rng)
    source = (..., slice(top, top + rows), slice(left, left + columns))
    destination = (..., slice(into_top, into_top + rows), slice(into_left, into_left + columns))
    cropped = torch.zeros(3, size, size)
    cropped[destination] = image[source].to(torch.float32).div_(255)
    valid = torch.zeros(1, size, size, dtype=torch.bool)
    valid[destination] = True
    target = None
    if label is not None:
        target = torch.full((1, size, size), IGNORE, dtype=torch.int64)
        target[destination] = label[source].to(torch.int64)
        target = target[0]
    return Crop(cropped, valid, target)


def whole_crop(image: Tensor, label: Tensor, size: int) -> Crop:
    """Put a whole picture into the upper left of a `size` x `size` crop, reduced if it is larger.

    Args:
        image: (3, H, W) uint8.
        label: (1, H, W) uint8.
        size: Side of the crop in pixels.
    """
    height, width = image.shape[-2:]
    factor = min(1.0, size / max(height, width))
    fitting = (max(1, round(height * factor)), max(1, round(width * factor)))
    place = (..., slice(0, fitting[0]), slice(0, fitting[1]))
    cropped = torch.zeros(3, size, size)
    cropped[place] = resize(image, fitting).to(torch.float32).div_(255)
    valid = torch.zeros(1, size, size, dtype=torch.bool)
    valid[place] = True
    target = torch.full((1, size, size), IGNORE, dtype=torch.int64)
    target[place] = resize_label(label, fitting).to(torch.int64)
    return Crop(cropped, valid, target[0])


def normalise(image: Tensor, normalisation: Normalisation, valid: Tensor | None = None) -> Tensor:
    """Normalise (B, 3, H, W) float images in 0..1; zero where `valid` (B, 1, H, W) is false."""
    mean = image.new_tensor(normalisation.mean).view(1, 3, 1, 1)
    std = image.new_tensor(normalisation.std).view(1, 3, 1, 1)
    out = (image - mean) / std
    return out if valid is None else out * valid
