"""Which class a mask without one is of: that of the CAM which it overlaps most.

As SAM's masks improve pseudo-labels in Chen et al., Segment Anything Model (SAM) Enhanced Pseudo
Labels for WSSS (SEPL, 2023, arXiv 2305.05803): a mask is taken for a class that fills more than
half of it, or of whose region it holds nearly all; where no mask lies, the CAM is trusted. In their
public code the classes have their turns and a mask goes to the first that takes it; here it goes to
the one with the largest overlap, so that the order of the classes is of no effect.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from wsss.maps.background import Background, background_map


@dataclass(frozen=True)
class Rule:
    """When a mask is taken.

    Attributes:
        background: Background's score beside the CAMs.
        min_coverage: A mask is taken where more than this share of it is in its class's region,
        min_share: or where it holds at least this share of the region.
        keep_uncovered: Whether the region stays where no mask lies, taken or not.
    """

    background: Background
    min_coverage: float = 0.5
    min_share: float = 0.85
    keep_uncovered: bool = True


def class_maps_of(
    masks: Iterable[npt.NDArray[np.bool_]], cams: npt.NDArray[np.float32], rule: Rule
) -> tuple[npt.NDArray[np.float32], int]:
    """Turn masks without classes into maps of a picture's classes.

    Where masks of two classes overlap, the pixel is of the one that its class fills more of.

    Args:
        masks: (H, W) each; one is held at a time.
        cams: (K, H, W) in 0..1, of the picture's classes.
        rule: When a mask is taken.

    Returns:
        (K, H, W) float32: 1 in masks of the class, the CAM where it stays, else 0; and how many
        masks were taken.
    """
    count = len(cams)
    background = background_map(cams, rule.background)
    # Background comes first, so that it wins ties.
    region = np.concatenate([background[None], cams]).argmax(axis=0)
    areas = np.bincount(region.ravel(), minlength=count + 1)[1:]
    owner = np.zeros(region.shape, np.int64)
    filled = np.zeros(region.shape, np.float64)
    covered = np.zeros(region.shape, bool)
    taken = 0
    for mask in masks:
        covered |= mask
        overlaps = np.bincount(region[mask], minlength=count + 1)[1:]
        best = int(overlaps.argmax()) if count else 0
        if not count or overlaps[best] == 0:
            continue
        coverage = overlaps[best] / np.count_nonzero(mask)
        if coverage > rule.min_coverage or overlaps[best] >= rule.min_share * areas[best]:
            taken += 1
            here = mask & (coverage > filled)
            owner[here], filled[here] = best + 1, coverage
    labels = np.arange(1, count + 1)[:, None, None]
    maps = (owner == labels).astype(np.float32)
    if rule.keep_uncovered:
        maps += np.where((region == labels) & ~covered, cams, np.float32(0))
    return maps, taken
