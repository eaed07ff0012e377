"""Which tool's masks a file or folder holds."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from wsss.data.coco_entries import has_lists
from wsss.data.imports import coco, voc
from wsss.data.imports.drawn import ClassNames, Drawing, Files
from wsss.data.imports.label_studio import read_label_studio
from wsss.data.imports.png import read_pngs
from wsss.data.json_files import parse_json, read_data_json
from wsss.data.listing import require_file
from wsss.errors import UserError

READ = (
    "CVAT's Segmentation mask 1.1 (a zip), COCO JSON (or a zip of it), Label Studio's JSON, "
    "a VOC folder with SegmentationClass/, or a folder of label PNGs"
)


def read_drawing(source: Path, classes: tuple[str, ...]) -> Drawing:
    """Recognise what a file or folder is and list its masks.

    Args:
        source: The file or folder.
        classes: The run's classes, which the masks' are matched with by name.

    Raises:
        UserError: It does not exist, is nothing of this kind, or is malformed.
    """
    names = ClassNames(classes)
    if os.path.isdir(source):  # noqa: PTH112 - a `Path` raises where a name is too long
        return _read_folder(Files(source), names)
    require_file(source)
    if not source.exists():
        raise UserError("this file does not exist", where=source)
    if source.suffix.lower() == ".json":
        return _drawing(read_data_json(source), str(source), names)
    if source.suffix.lower() != ".zip":
        raise UserError("this is no file of masks that is known", where=source, expected=READ)
    files = Files(source)
    if voc.base(files) is not None:
        return voc.read_voc(files, names)
    documents = [name for name in files.names if name.lower().endswith(".json")]
    if documents:
        # One a set, where the tool knows sets.
        return _together([_of_zip(files, name, names) for name in documents], source)
    raise UserError("no masks of a kind that is known are here", where=source, expected=READ)


def _of_zip(files: Files, name: str, names: ClassNames) -> Drawing:
    return _drawing(parse_json(files.read(name), files.place(name)), files.place(name), names)


def _together(drawings: Sequence[Drawing], source: Path) -> Drawing:
    first, *others = drawings
    for each in others:
        if each.tool != first.tool:
            raise UserError(f"this zip has {first.tool} and {each.tool}", where=source)
        first.masks += each.masks
        first.notes += each.notes
    return first


def _read_folder(files: Files, names: ClassNames) -> Drawing:
    if voc.base(files) is not None:
        return voc.read_voc(files, names)
    if any(name.lower().endswith(".png") for name in files.names):
        return read_pngs(files, names)
    raise UserError("no masks of a kind that is known are here", where=files.path, expected=READ)


def _drawing(document: Any, place: str, names: ClassNames) -> Drawing:
    if has_lists(document):
        return coco.read_coco(document, place, names)
    if isinstance(document, list) and document and all(map(_is_task, document)):
        return read_label_studio(document, place, names)
    raise UserError(
        "this JSON is neither COCO's nor Label Studio's",
        where=place,
        expected="an object with images, annotations and categories; or Label Studio's export "
        "'JSON' (not 'JSON-MIN'), a list of tasks with data and annotations",
    )


def _is_task(task: object) -> bool:
    return isinstance(task, dict) and isinstance(task.get("data"), dict)
