"""VOC's layout, in a folder or in the zip that CVAT calls "Segmentation mask 1.1"."""

from __future__ import annotations

import functools
import io
import re
from collections.abc import Mapping

import numpy as np
from PIL import Image

from wsss.data.images import IGNORE, voc_palette
from wsss.data.imports.drawn import ClassNames, Drawing, DrawnMask, Files, Label, relabelled
from wsss.errors import UserError, listed

FOLDER = "SegmentationClass"
LABELMAP = "labelmap.txt"
_NUMBER = re.compile(r"\s*[0-9]{1,3}\s*")
Colour = tuple[int, int, int]
Values = Mapping[int, int | UserError]


def base(files: Files) -> str | None:
    """Return what stands before `SegmentationClass/`, or None where there is none.

    Raises:
        UserError: There are several, and none lies above the others.
    """
    found = (name.partition(f"{FOLDER}/") for name in files.names)
    starts = {start for start, middle, _ in found if middle}
    highest = min((start.count("/") for start in starts), default=0)
    bases = sorted(start for start in starts if start.count("/") == highest)
    if len(bases) > 1:
        raise UserError(
            f"there are several {FOLDER}/ here: in {listed(bases, 4)}",
            where=files.path,
            fix="name the one that is meant",
        )
    return bases[0] if bases else None


def read_voc(files: Files, names: ClassNames) -> Drawing:
    """List the masks in `SegmentationClass/`.

    With a `labelmap.txt` colours are classes, as CVAT chooses them; without, labels are in the
    order of the run's classes and colours are VOC's.

    Raises:
        UserError: labelmap.txt is malformed, or a zip has none.
    """
    start = base(files)
    assert start is not None
    has_map = f"{start}{LABELMAP}" in files.names
    zipped = files.path.is_file()
    if zipped and not has_map:
        raise UserError(f"there is no {LABELMAP} in this zip", where=files.path)
    drawing = Drawing(
        tool="CVAT's Segmentation mask 1.1" if zipped else "a VOC folder",
        knows_unsure=not zipped,
        named=has_map,
    )
    colours = dict(enumerate(map(tuple, voc_palette().tolist())))
    values = names.in_order()
    if has_map:
        colours, values = _labelmap(files, f"{start}{LABELMAP}", names)
    # VOC's colour of what does not count is at its place whatever a labelmap says.
    colours.setdefault(IGNORE, tuple(voc_palette()[IGNORE].tolist()))
    values = {0: 0, **values, IGNORE: IGNORE}
    for name, picture in files.pngs(f"{start}{FOLDER}/"):
        read = functools.partial(_read, files, name, colours, values)
        drawing.masks.append(DrawnMask(picture, files.place(name), read))
    return drawing


def _labelmap(
    files: Files, name: str, names: ClassNames
) -> tuple[dict[int, Colour], dict[int, int | UserError]]:
    """Return colours by line, and the run's label of each line or why it has none."""
    place = files.place(name)
    colours: dict[int, Colour] = {}
    values: dict[int, int | UserError] = {}
    lines = [
        line for line in files.text(name).splitlines() if line.strip() and not line.startswith("#")
    ]
    for position, line in enumerate(lines):
        label, _, rest = line.partition(":")
        parts = rest.partition(":")[0].split(",")
        if len(parts) != 3 or not all(map(_NUMBER.fullmatch, parts)):
            raise UserError(
                f"the line {line[:200]!r}",
                where=place,
                expected="name:red,green,blue:parts:actions",
            )
        colour = (int(parts[0]), int(parts[1]), int(parts[2]))
        if colour in colours.values() or max(colour) > 255 or position >= IGNORE:
            raise UserError(f"the colour of {label!r} is another one's, or none", where=place)
        colours[position] = colour
        values[position] = names.label_or_reason(label, place)
    return colours, values


def _read(files: Files, name: str, colours: Mapping[int, Colour], values: Values) -> Label:
    place = files.place(name)
    try:
        with Image.open(io.BytesIO(files.read(name)), formats=("PNG",)) as image:
            if image.mode == "L":
                return relabelled(np.array(image, dtype=np.uint8), values)
            if image.mode not in ("P", "RGB", "RGBA"):
                raise UserError(
                    f"a mask of mode {image.mode!r}", where=place, expected="colours or labels"
                )
            picture = np.array(image.convert("RGB"))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(f"this mask cannot be read: {error}", where=place) from None
    return relabelled(_positions(picture, colours), values)


def _positions(picture: np.ndarray, colours: Mapping[int, Colour]) -> Label:
    weights = np.array([1 << 16, 1 << 8, 1])
    known = {int(np.array(colour) @ weights): place for place, colour in colours.items()}
    codes, which = np.unique(picture.reshape(-1, 3) @ weights, return_inverse=True)
    unknown = [int(code) for code in codes if int(code) not in known]
    if unknown:
        shown = (f"{code >> 16},{code >> 8 & 255},{code & 255}" for code in unknown[:5])
        raise UserError(f"it has colours that are no class's: {'; '.join(shown)}")
    table = np.array([known[int(code)] for code in codes], dtype=np.uint8)
    found: Label = table[which].reshape(picture.shape[:2])
    return found
