"""Pixel-adaptive refinement of score maps (PAR; Ru et al., AFA, CVPR 2022, section 3.4).

Each pixel takes the weighted mean of pixels around it, again and again; the weights say how alike
their colours are, measured against how much colours vary there, and how near they lie. Beside the
dense CRF: no compiled extension, and as fast as a GPU, where there is one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

DILATIONS = (1, 2, 4, 8, 12, 24)
ITERATIONS = 20
COLOUR_WIDTH = 0.3
POSITION_WEIGHT = 0.01
_EPSILON = 1e-8
_AROUND = ((-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1))


def par(
    image: Tensor,
    scores: Tensor,
    *,
    iterations: int = ITERATIONS,
    dilations: Sequence[int] = DILATIONS,
    colour_width: float = COLOUR_WIDTH,
    position_weight: float = POSITION_WEIGHT,
) -> Tensor:
    """Refine score maps of one image.

    Args:
        image: (3, H, W), any number type; only differences relative to their spread count, so
            that its scale is of no effect.
        scores: (K, H, W) float32, background's map among them.
        iterations: How often each pixel takes its neighbours' mean.
        dilations: Distances of the neighbours, eight at each.
        colour_width: Width of the colour term, in standard deviations of the neighbours' colours;
            the position term has the same.
        position_weight: Weight of the position term, the colour term's being 1.

    Returns:
        (K, H, W) float32. The weights of a pixel sum to 1 + `position_weight`, so the maps grow by
        as much each time, all alike.
    """
    offsets = _offsets(dilations)
    colours = image.to(torch.float32)
    margin = max(dilations)
    weights = _weights(colours, offsets, margin, colour_width)
    distances = torch.tensor([float(dy * dy + dx * dx) ** 0.5 for dy, dx in offsets])
    spread = distances.std() + _EPSILON
    near = (-((distances / spread / colour_width) ** 2)).softmax(dim=0)
    weights += position_weight * near.to(weights.device)[:, None, None]
    refined = scores.to(torch.float32)
    for _ in range(iterations):
        total = torch.zeros_like(refined)
        for weight, neighbour in zip(weights, _neighbours(refined, offsets, margin), strict=True):
            total.addcmul_(neighbour, weight)
        refined = total
    return refined


def _offsets(dilations: Sequence[int]) -> list[tuple[int, int]]:
    return [(dy * far, dx * far) for far in dilations for dy, dx in _AROUND]


def _weights(
    image: Tensor, offsets: Sequence[tuple[int, int]], margin: int, width: float
) -> Tensor:
    """Return the colour term's weights, (offsets, H, W); each pixel's sum to 1.

    The neighbours are walked through thrice, so that their colours are never all kept.
    """
    count = len(offsets)
    mean = sum(_neighbours(image, offsets, margin), torch.zeros_like(image)) / count
    variance = torch.zeros_like(image)
    for neighbour in _neighbours(image, offsets, margin):
        variance += (neighbour - mean) ** 2
    scale = ((variance / (count - 1)).sqrt() + _EPSILON) * width
    terms = image.new_empty(count, *image.shape[1:])
    for term, neighbour in zip(terms, _neighbours(image, offsets, margin), strict=True):
        term.copy_(-(((neighbour - image) / scale) ** 2).mean(dim=0))
    return terms.softmax(dim=0)


def _neighbours(maps: Tensor, offsets: Sequence[tuple[int, int]], margin: int) -> Iterator[Tensor]:
    """Yield (C, H, W) maps shifted by each offset; beyond the border is the border's value."""
    height, width = maps.shape[-2:]
    padded = F.pad(maps[None], [margin] * 4, mode="replicate")[0]
    for dy, dx in offsets:
        top, left = margin + dy, margin + dx
        yield padded[:, top : top + height, left : left + width]
