"""Whether all of a JPEG picture is there: decoders fill what is missing with grey and say nothing.

A file that lost bytes in its middle, as an interrupted copy that was continued leaves it, still has
its end mark. Its scans then end before the picture does. That is found by putting random bytes
behind each scan: a decoder that has all it needs skips them, one that has not takes them for
picture (ITU-T T.81, B.1.1 and E.2: segments, and decoding up to the next marker).
"""

from __future__ import annotations

import io
import re
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_START, _END, _SCAN, _INTERVAL = 0xD8, 0xD9, 0xDA, 0xDD
_END_MARK = b"\xff\xd9"
# Start of frame, whose number says how the picture is coded; the others between are tables.
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_PROGRESSIVE = frozenset((0xC2, 0xC6, 0xCA, 0xCE))
_ALONE = frozenset((0x01, _START))  # markers without a length
# In coded data 0xff is followed by 0, or by the number of a restart.
_MARKER = re.compile(rb"\xff+[^\x00\xd0-\xd7\xff]")
_RESTART = re.compile(rb"\xff([\xd0-\xd7])")
_COEFFICIENTS = 64
_UNTOUCHED = 99
# What a decoder shows where there was nothing to decode.
_NOTHING = 128
_FILLING_BYTES = 4096


def missing_part(data: bytes) -> str | None:
    """Say what is missing of a JPEG file; None: it is whole.

    Args:
        data: The file.

    Raises:
        OSError: It has no end mark, and cannot be decoded as a whole.
    """
    try:
        scans = _scans(data)
    except EOFError:
        if data.endswith(_END_MARK):
            return "its segments are not whole"
        _decoded(data, whole=True)
        return None
    except (LookupError, ValueError):
        return "its segments are not whole"
    if scans.reason is not None:
        return scans.reason
    # The last block of a picture that ran out of data is grey, or else that before a restart.
    if not scans.progressive and not scans.restarts and not _ends_grey(data):
        return None
    whole = scans.progressive
    if np.array_equal(_decoded(data, whole), _decoded(_filled(data, scans.ends), whole)):
        return None
    return "data are missing in its middle"


@dataclass
class _Scans:
    """The coded data of a file.

    Attributes:
        ends: Where pieces of them end: each scan, and what is between restarts.
        progressive: Whether scans refine each other.
        restarts: Whether there are restarts.
        reason: What else is wrong.
    """

    ends: list[int] = field(default_factory=list)
    progressive: bool = False
    restarts: bool = False
    reason: str | None = None


@dataclass
class _Frame:
    """What a start of frame says: size, and sampling factors (h, v) by component."""

    width: int
    height: int
    sampling: dict[int, tuple[int, int]]

    def units(self, components: list[int]) -> int:
        """Return the number of units that a scan of these components is coded in (A.2)."""
        h_most = max(h for h, _ in self.sampling.values())
        v_most = max(v for _, v in self.sampling.values())
        if len(components) > 1:
            return -(-self.width // (8 * h_most)) * -(-self.height // (8 * v_most))
        h, v = self.sampling[components[0]]
        width, height = -(-self.width * h // h_most), -(-self.height * v // v_most)
        return -(-width // 8) * -(-height // 8)


def _scans(data: bytes) -> _Scans:
    """Find the coded data.

    Raises:
        EOFError: There is no end mark.
        IndexError: A segment is shorter than what it must hold.
        ValueError: The same, or there is no scan.
        KeyError: A scan is of a component that there is not.
    """
    found = _Scans()
    frame: _Frame | None = None
    interval = 0
    # How many low bits each coefficient of each component still lacks.
    lacking: dict[tuple[int, int], int] = {}
    position = 2
    while True:
        marker, _, position = _next_marker(data, position)
        if marker == _END:
            break
        if marker in _ALONE:
            continue
        length = int.from_bytes(data[position : position + 2], "big")
        body = data[position + 2 : position + length]
        position += max(length, 2)
        if marker in _FRAMES:
            found.progressive = marker in _PROGRESSIVE
            frame = _frame(body)
            lacking = {(c, k): _UNTOUCHED for c in frame.sampling for k in range(_COEFFICIENTS)}
        elif marker == _INTERVAL:
            interval = int.from_bytes(body[:2], "big")
        elif marker == _SCAN and frame is not None:
            count = body[0]
            components = [body[1 + 2 * place] for place in range(count)]
            first, last, bits = body[1 + 2 * count : 4 + 2 * count]
            refined = [(c, k) for c in components for k in range(first, last + 1)]
            # A scan takes up where the one before it stopped; the first says 0 (G.1.1.1.2).
            before = bits >> 4 or _UNTOUCHED
            if found.progressive and any(lacking[each] != before for each in refined):
                found.reason = "some of its scans are missing"
            lacking |= dict.fromkeys(refined, bits & 15)
            _, end, _ = _next_marker(data, position)
            restarts = [position + each.start() for each in _RESTART.finditer(data[position:end])]
            expected = -(-frame.units(components) // interval) - 1 if interval else 0
            numbers = [data[place + 1] & 7 for place in restarts]
            if numbers != [number % 8 for number in range(expected)] and frame.height:
                found.reason = "parts of its middle are missing (by its restart marks)"
            found.restarts |= bool(restarts)
            found.ends += [*restarts, end]
            position = end
    if not found.ends:
        raise ValueError("no scan")
    if found.progressive and any(lacking.values()):
        found.reason = "some of its scans are missing"
    return found


def _next_marker(data: bytes, position: int) -> tuple[int, int, int]:
    """Return the next marker, where it begins, and what follows it."""
    match = _MARKER.search(data, position)
    if match is None:
        raise EOFError
    return data[match.end() - 1], match.start(), match.end()


def _frame(body: bytes) -> _Frame:
    height, width = int.from_bytes(body[1:3], "big"), int.from_bytes(body[3:5], "big")
    factors = [body[6 + 3 * place : 8 + 3 * place] for place in range(body[5])]
    return _Frame(width, height, {f[0]: (max(1, f[1] >> 4), max(1, f[1] & 15)) for f in factors})


def _filled(data: bytes, ends: list[int]) -> bytes:
    """Put bytes that a decoder would take for picture behind each scan."""
    # 0xff would begin a marker.
    filling = np.random.default_rng(0).integers(0, 255, _FILLING_BYTES, dtype=np.uint8).tobytes()
    starts = [0, *ends]
    return filling.join(data[a:b] for a, b in zip(starts, [*ends, len(data)], strict=True))


def _decoded(data: bytes, whole: bool) -> NDArray[np.uint8]:
    """Return the pixels, at an eighth of the size unless all of the details are wanted."""
    with Image.open(io.BytesIO(data), formats=("JPEG",)) as image:
        if not whole:
            image.draft(image.mode, (1, 1))
        return np.asarray(image)


def _ends_grey(data: bytes) -> bool:
    pixels = _decoded(data, whole=False)
    if pixels.ndim == 3 and pixels.shape[2] == 4:
        return True  # Of four inks there are several ways to be none: look closely.
    return bool((pixels[-1, -1] == _NOTHING).all())
