"""Label PNGs in a folder, as `wsss export-labels --format png` writes them."""

from __future__ import annotations

import functools
from pathlib import Path

from wsss.data.images import IGNORE, read_label
from wsss.data.imports.drawn import ClassNames, Drawing, DrawnMask, Files, Label, relabelled
from wsss.errors import UserError

CLASSES = "classes.txt"
FOLDER = "masks/"


def read_pngs(files: Files, names: ClassNames) -> Drawing:
    """List the masks of a folder, or in `masks/` of it.

    With a `classes.txt` the labels are in its order; without, in that of the run's classes.
    """
    has_names = CLASSES in files.names
    drawing = Drawing(tool="a folder of label PNGs", knows_unsure=True, named=has_names)
    values = names.in_order()
    if has_names:
        lines = files.text(CLASSES).splitlines()
        values, named = {}, set[str]()
        for position, name in enumerate((line.strip() for line in lines if line.strip()), start=1):
            if name in named:
                raise UserError(
                    f"the class {name!r} stands twice in the list",
                    where=files.place(CLASSES),
                    fix="have the tool export it again, or give each label its own class",
                )
            named.add(name)
            values[position] = names.label_or_reason(name, files.place(CLASSES))
    values |= {0: 0, IGNORE: IGNORE}
    start = FOLDER if any(name.startswith(FOLDER) for name in files.names) else ""
    for name, picture in files.pngs(start):
        read = functools.partial(_read, files.path / name, values)
        drawing.masks.append(DrawnMask(picture, files.place(name), read))
    return drawing


def _read(path: Path, values: dict[int, int | UserError]) -> Label:
    return relabelled(read_label(path), values)
