"""Label Studio's JSON: brush strokes and polygons that a person has submitted."""

from __future__ import annotations

import functools
from collections.abc import Collection, Sequence
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from wsss.data.images import IMAGE_SUFFIXES
from wsss.data.imports.drawn import ClassNames, Drawing, DrawnMask, Label
from wsss.data.json_files import whole_number
from wsss.errors import UserError, listed

_OPAQUE = 128
_DRAWN = ("brushlabels", "polygonlabels")
_NOT_DRAWN = ("rectanglelabels", "ellipselabels", "keypointlabels")


def read_label_studio(tasks: Sequence[dict[str, Any]], place: str, names: ClassNames) -> Drawing:
    """List the masks of the tasks that somebody has submitted; predictions are not looked at.

    Raises:
        UserError: An entry is malformed.
    """
    drawing = Drawing(tool="Label Studio's JSON", knows_unsure=False)
    without: list[str] = []
    empty: list[str] = []
    boxes: list[str] = []
    try:
        for task in tasks:
            picture = _picture(task)
            submitted = [
                each for each in task.get("annotations", ()) if not each.get("was_cancelled")
            ]
            if not submitted:
                without.append(picture)
                continue
            last = max(submitted, key=lambda each: (str(each.get("updated_at")), _id(each)))
            if len(submitted) > 1:
                drawing.notes.append(f"{picture} was submitted {len(submitted)} times: the last")
            at = f"{place}, {picture}"
            regions = [each for each in last["result"] if each.get("type") in _DRAWN]
            if not regions:
                empty.append(picture)
                continue
            if any(each.get("type") in _NOT_DRAWN for each in last["result"]):
                boxes.append(picture)
            sizes = {
                (whole_number(each["original_height"]), whole_number(each["original_width"]))
                for each in regions
            }
            read = functools.partial(_read, regions, sizes, names, at)
            drawing.masks.append(DrawnMask(picture, at, read, submitted=True, size=max(sizes)))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"a task of this JSON is malformed: {error!r}", where=place) from None
    if without:
        drawing.notes.append(f"left out, not submitted: {len(without)} ({listed(without, 3)})")
    if empty:
        what = "left out, without brush strokes and polygons"
        drawing.notes.append(f"{what}: {len(empty)} ({listed(empty, 3)})")
    if boxes:
        drawing.notes.append(f"left out, boxes, ellipses and points: in {listed(boxes, 3)}")
    return drawing


def _id(annotation: dict[str, Any]) -> int:
    return whole_number(annotation.get("id") or 0)


def _picture(task: dict[str, Any]) -> str:
    """Return what a task calls its picture: the path behind its address, else a name."""
    data = task["data"]
    for text in (data.get("image"), *data.values()):
        if not isinstance(text, str):
            continue
        address = urlsplit(text)
        path = PurePosixPath(parse_qs(address.query).get("d", [unquote(address.path)])[0])
        if path.suffix.lower() in IMAGE_SUFFIXES:
            return str(path)
    if isinstance(data.get("name"), str):
        return str(data["name"])
    raise ValueError(f"no picture in {sorted(data)}")


def _read(
    regions: Sequence[dict[str, Any]],
    sizes: Collection[tuple[int, int]],
    names: ClassNames,
    place: str,
) -> Label:
    if len(sizes) > 1 or any(each.get("image_rotation") for each in regions):
        raise UserError("its regions are of different sizes, or turned", where=place)
    (size,) = sizes
    label = np.zeros(size, dtype=np.uint8)
    for region in regions:
        kind = str(region["type"])
        draw = _brush if kind == "brushlabels" else _polygon
        try:
            value = region["value"]
            if len(value[kind]) != 1:
                raise ValueError(f"its labels are {value[kind]!r:.80}, expected one")
            (name,) = value[kind]
            mask = draw(value, size)
        except (ValueError, KeyError, IndexError, TypeError) as error:
            reason = f"there is no {error}" if isinstance(error, KeyError) else error
            raise UserError(f"a region cannot be drawn: {reason}", where=place) from None
        # What was drawn later lies on top, as on the screen.
        label[mask] = names.label(str(name), place)
    return label


def _brush(value: dict[str, Any], size: tuple[int, int]) -> npt.NDArray[np.bool_]:
    packed = value["rle"]
    if not isinstance(packed, list) or not all(type(each) is int for each in packed):
        raise ValueError("its run lengths are no list of bytes")
    if not all(0 <= each <= 255 for each in packed):
        raise ValueError("its run lengths hold a number that is no byte")
    values = int.from_bytes(bytes(packed[:4]), "big")
    if values != size[0] * size[1] * 4:  # asked first: a few bytes can say that they are gigabytes
        raise ValueError(f"{values} values for {size[1]} x {size[0]} px")
    flat = unpacked_rle(packed)
    opaque: npt.NDArray[np.bool_] = flat.reshape(*size, 4)[..., 3] >= _OPAQUE
    return opaque


def _polygon(value: dict[str, Any], size: tuple[int, int]) -> npt.NDArray[np.bool_]:
    height, width = size
    # Points are in percent of the sides, at the corners of pixels.
    for each in (number for point in value["points"] for number in point):
        # Some draw a little over the edge; as far again as the picture is a mistake.
        if not isinstance(each, (int, float)) or not -100 <= each <= 200:
            raise ValueError(f"the coordinate {str(each)[:20]}, expected 0 to 100 percent")
    points = [(x * width / 100 - 0.5, y * height / 100 - 0.5) for x, y in value["points"]]
    drawn = Image.new("1", (width, height))
    ImageDraw.Draw(drawn).polygon(points, fill=1)
    return np.array(drawn, dtype=bool)


def unpacked_rle(packed: Sequence[int]) -> npt.NDArray[np.uint8]:
    """Return the values of a brush region, in the format of `@thi.ng/rle-pack`.

    A header as `wsss.data.exports.label_studio.brush_rle` says; then blocks: a bit that says
    whether it is a run, two bits that choose how many bits the length - 1 has, the length - 1,
    and the word that is repeated, or as many words.

    Raises:
        ValueError: It ends too early, or has words of another size.
    """
    bits = np.unpackbits(np.asarray(packed, dtype=np.uint8))
    text = bits.tobytes()

    def number(start: int, count: int) -> int:
        if start + count > len(text):
            raise ValueError("the run lengths end too early")
        return int.from_bytes(np.packbits(bits[start : start + count]).tobytes(), "big") >> (
            -count % 8
        )

    total, word = number(0, 32), number(32, 5) + 1
    if word != 8:
        raise ValueError(f"words of {word} bits")
    sizes = [number(37 + 4 * i, 4) + 1 for i in range(4)]
    at, filled = 53, 0
    found = np.zeros(total, dtype=np.uint8)
    while filled < total:
        is_run, size = number(at, 1), sizes[number(at + 1, 2)]
        length = number(at + 3, size) + 1
        at += 3 + size
        if filled + length > total:
            raise ValueError("the run lengths are longer than they say")
        if is_run:
            found[filled : filled + length] = number(at, 8)
            at += 8
        else:
            if at + 8 * length > len(text):
                raise ValueError("the run lengths end too early")
            found[filled : filled + length] = np.packbits(bits[at : at + 8 * length])
            at += 8 * length
        filled += length
    return found
