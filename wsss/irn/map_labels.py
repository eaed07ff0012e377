"""Pseudo-labels straight from class maps: a background map, a refinement, the sure pixels.

As CLIP-ES (CVPR 2023) makes its own; no IRNet is trained. The refinement is a dense CRF or PAR.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt
import torch

from wsss.data.crf import crf_from_probabilities
from wsss.data.crf_config import CrfConfig
from wsss.data.par import par

# What DeepLab-v2 subtracts from an image's blue, green and red.
_BGR_MEAN = (104.008, 116.669, 122.675)

Maps = npt.NDArray[np.float32]


def wrapped_bgr(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Return the image as CLIP-ES's public code hands it to the CRF.

    Blue, green, red; less a mean; then cast to 8 bits, where what is negative wraps around: -3
    becomes 253. It is reproduced for its numbers' sake alone.

    Args:
        image: (H, W, 3) uint8 RGB.
    """
    shifted = image[..., ::-1].astype(np.float32) - np.array(_BGR_MEAN, dtype=np.float32)
    # Through a signed type: what a negative float becomes in an unsigned one is up to the machine.
    return np.trunc(shifted).astype(np.int16).astype(np.uint8)


def refined_scores(
    image: npt.NDArray[np.uint8],
    scores: Maps,
    *,
    refine: Literal["crf", "par"],
    crf: CrfConfig,
    par_iterations: int,
    device: torch.device,
) -> Maps:
    """Refine scores of background and classes; background first.

    Args:
        image: (H, W, 3) uint8.
        scores: (1 + K, H, W) float32 in 0..1; they need not sum to 1.
        refine: Dense CRF, or PAR.
        crf: Its settings.
        par_iterations: PAR: iterations.
        device: PAR: where to compute.

    Returns:
        (1 + K, H, W) float32 that sum to 1 over the labels.
    """
    if refine == "crf":
        return crf_from_probabilities(image, scores, crf)
    picture = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1).to(device)
    refined = par(picture, torch.from_numpy(scores).to(device), iterations=par_iterations)
    shares = refined / refined.sum(dim=0, keepdim=True).clamp_min(torch.finfo(torch.float32).tiny)
    result: Maps = shares.cpu().numpy()
    return result


def class_shares(scores: Maps) -> Maps:
    """Return each class's share of itself and background, which keeps the order of the classes.

    Args:
        scores: (1 + K, H, W) float32, not negative, background first.

    Returns:
        (K, H, W) float32; above one half where the class beats background; 0 where it has nothing.
    """
    classes = scores[1:]
    total = np.maximum(classes + scores[:1], np.finfo(np.float32).tiny)
    return np.asarray(classes / total, dtype=np.float32)
