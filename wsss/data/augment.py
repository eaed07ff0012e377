"""Stronger augmentation, as vision transformers are trained with (DeiT, MCTformer)."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from wsss.models.backbones import IMAGENET

# Where an operation uncovers nothing: ImageNet's mean colour.
_FILL = [round(255 * mean) for mean in IMAGENET.mean]
_ERASED_AREA = (0.02, 1 / 3)
_ERASED_ASPECT = (0.3, 1 / 0.3)
_ERASING_ATTEMPTS = 10


def rand_augment(
    image: Tensor, rng: np.random.Generator, *, operations: int, magnitude: int
) -> Tensor:
    """Apply random colour and geometry operations (RandAugment, 2020), torchvision's set of them.

    Args:
        image: (3, H, W) uint8.
        rng: Decides every draw.
        operations: How many, one after the other; 0 returns the image.
        magnitude: Their strength, 0 to 30.

    Returns:
        (3, H, W) uint8.
    """
    if operations == 0:
        return image
    # Here, as it takes long to import and few trainings want it.
    from torchvision.transforms import v2

    transform = v2.RandAugment(num_ops=operations, magnitude=magnitude, fill=_FILL)
    # torchvision draws from PyTorch's global generator, which is put back afterwards.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(rng.integers(2**62)))
        augmented: Tensor = transform(image)
    return augmented


def random_erasing(image: Tensor, rng: np.random.Generator, probability: float) -> Tensor:
    """Turn a random rectangle into noise (Random Erasing, AAAI 2020, one value a pixel).

    The rectangle covers 2 % to a third of the image, its sides in a ratio of 0.3 to 1 / 0.3. The
    noise is standard normal once the image is normalised with ImageNet's mean and deviation.

    Args:
        image: (3, H, W) float in 0..1, before normalisation.
        rng: Decides every draw.
        probability: Of erasing at all.

    Returns:
        (3, H, W) float; erased pixels may leave 0..1.
    """
    if probability == 0 or rng.random() >= probability:
        return image
    height, width = image.shape[-2:]
    for _ in range(_ERASING_ATTEMPTS):
        area = rng.uniform(*_ERASED_AREA) * height * width
        aspect = math.exp(rng.uniform(*np.log(_ERASED_ASPECT)))
        rows, columns = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < rows < height and 0 < columns < width:
            break
    else:
        return image
    top, left = (int(rng.integers(0, n + 1)) for n in (height - rows, width - columns))
    noise = torch.from_numpy(rng.standard_normal((3, rows, columns), dtype=np.float32))
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (IMAGENET.mean, IMAGENET.std))
    erased = image.clone()
    erased[:, top : top + rows, left : left + columns] = noise * std + mean
    return erased
