"""Label PNGs in a folder, as `wsss export-labels --format png` writes them."""

from __future__ import annotations

import functools
from pathlib import Path, PurePosixPath

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
    values: dict[int, int | UserError] = {i + 1: i + 1 for i in range(len(names.classes))}
    if has_names:
        lines = files.text(CLASSES).splitlines()
        values, named = {}, set[str]()
        for position, name in enumerate((line.strip() for line in lines if line.strip()), start=1):
            if name in named:
                raise UserError(
                    f"the class {name!r} stands twice in the list", where=files.place(CLASSES)
                )
            named.add(name)
            try:
                values[position] = names.label(name, files.place(CLASSES))
            except UserError as error:
                values[position] = error
    values |= {0: 0, IGNORE: IGNORE}
    start = FOLDER if any(name.startswith(FOLDER) for name in files.names) else ""
    for name in files.names:
        path = PurePosixPath(name.removeprefix(start))
        if name.startswith(start) and path.suffix.lower() == ".png":
            read = functools.partial(_read, files.path / name, values)
            picture = path.with_suffix("").as_posix()
            drawing.masks.append(DrawnMask(picture, files.place(name), read))
    return drawing


def _read(path: Path, values: dict[int, int | UserError]) -> Label:
    return relabelled(read_label(path), values)
