"""COCO's outlines as masks. What they hold is checked before it reaches pycocotools.

Its C code takes every number as it comes: coordinates far outside a picture end the process or fill
the memory, an odd number of them loses the last one, and run lengths are not counted.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsss.data.run_lengths import run_lengths

# A polygon of fewer points has no area, and pycocotools takes four numbers for a box.
_LEAST_NUMBERS = 6


def object_mask(annotation: dict[str, Any], height: int, width: int) -> NDArray[np.bool_]:
    """Return the mask of an annotation, (H, W) bool.

    Args:
        annotation: Its `segmentation`: polygons, run lengths, or run lengths as text.
        height: Rows of the image.
        width: Columns of the image.

    Raises:
        ValueError: It is none of these, or does not lie in the image; the message names it.
    """
    from pycocotools import mask as masks  # slow to import, and only COCO needs it

    segmentation = annotation.get("segmentation")
    try:
        if isinstance(segmentation, list):
            if segmentation and all(map(_is_number, segmentation)):
                segmentation = [segmentation]  # as VIA has it: there is no other way to read it
            polygons = _polygons(segmentation, height, width)
            if not polygons:
                return np.zeros((height, width), dtype=bool)
            encoded = masks.merge(masks.frPyObjects(polygons, height, width))
        elif isinstance(segmentation, dict):
            counts = _run_lengths(segmentation, height, width)
            plain = {"size": [height, width], "counts": counts}
            encoded = masks.frPyObjects(plain, height, width)
        else:
            raise ValueError(f"a segmentation that is {type(segmentation).__name__}")
    except ValueError as error:
        raise ValueError(f"annotation {annotation.get('id')}: {error}") from None
    with warnings.catch_warnings():
        # pycocotools 2.0.11 under NumPy 2: its array class lacks a keyword. The result is right.
        warnings.filterwarnings("ignore", message="__array__ impl", category=DeprecationWarning)
        mask: NDArray[np.bool_] = np.asarray(masks.decode(encoded)).astype(bool)
    return mask


def has_outline(annotation: dict[str, Any]) -> bool:
    """Say whether an annotation has more than a box; with `[[]]` some tools say that it has not."""
    return annotation.get("segmentation") not in (None, "", [], {}, [[]])


def is_crowd(annotation: dict[str, Any]) -> bool:
    """Say whether an annotation is of a crowd.

    Raises:
        ValueError: Its `iscrowd` is neither 0 nor 1: the text "0" would count as true.
    """
    value = annotation.get("iscrowd")
    if value not in (0, 1, None):
        raise ValueError(f"annotation {annotation.get('id')}: its iscrowd is {value!r}, not 0 or 1")
    return bool(value)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _polygons(segmentation: list[Any], height: int, width: int) -> list[list[float]]:
    """Return the polygons that have an area."""
    found = []
    for polygon in segmentation:
        if not isinstance(polygon, list) or not all(map(_is_number, polygon)):
            raise ValueError("a polygon that is no list of numbers")
        if len(polygon) % 2 or len(polygon) == 2:
            raise ValueError(f"a polygon of {len(polygon)} numbers, but x and y come in pairs")
        for values, side in ((polygon[0::2], width), (polygon[1::2], height)):
            # Some tools draw a little over the edge; as far again as the picture is a mistake.
            wrong = next((v for v in values if not -side <= v <= 2 * side), None)
            if wrong is not None:
                raise ValueError(f"the coordinate {wrong:g}, far outside {width} x {height} px")
        if len(polygon) >= _LEAST_NUMBERS:
            found.append([float(value) for value in polygon])
    return found


def _run_lengths(segmentation: dict[str, Any], height: int, width: int) -> list[int]:
    """Return run lengths, column by column, that fill the picture exactly."""
    size = segmentation.get("size")
    if size != [height, width]:
        raise ValueError(f"run lengths of size {size}, but the image is [{height}, {width}]")
    counts = run_lengths(segmentation.get("counts"))
    if sum(counts) != height * width:
        raise ValueError(f"run lengths of {sum(counts)} pixels, but the image has {height * width}")
    return counts
