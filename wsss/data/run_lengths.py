"""COCO's run lengths of masks.

Decoded here, as pycocotools does not check them, and wrong ones overwrite its memory.
"""

from __future__ import annotations

from typing import Any

# Bits of a number: far more than any picture has pixels.
_MOST_BITS = 30


def run_lengths(counts: Any) -> list[int]:
    """Return the run lengths of a mask, column by column, first what is outside.

    In text a number has 5 bits a letter, low ones first; the sixth says that more follow, the last
    letter's highest is the sign. From the fourth number on each is the difference to the one two
    before it.

    Args:
        counts: What COCO's JSON says: a list of whole numbers, or text.

    Raises:
        ValueError: It is neither, or holds a negative number.
    """
    if isinstance(counts, (str, bytes)):
        return _of_text(counts)
    if not isinstance(counts, list) or not all(
        type(run) is int and 0 <= run < 1 << _MOST_BITS for run in counts
    ):
        raise ValueError("its run lengths are not whole numbers from 0 to the picture's pixels")
    return counts


def _of_text(text: str | bytes) -> list[int]:
    found: list[int] = []
    value = shift = 0
    for letter in text.encode() if isinstance(text, str) else text:
        bits = letter - 48
        if not 0 <= bits < 64 or shift > _MOST_BITS:
            raise ValueError("its run lengths have a letter that there is not")
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift
        found.append(value + (found[-2] if len(found) > 2 else 0))
        value = shift = 0
    if shift or any(run < 0 for run in found):
        raise ValueError("its run lengths are cut short or negative")
    return found
