"""COCO JSON: polygons and run lengths."""

from __future__ import annotations

import functools
from typing import Any

from wsss.data.formats.coco import draw_labels
from wsss.data.imports.drawn import ClassNames, Drawing, DrawnMask, Label
from wsss.data.json_files import put_once, whole_number
from wsss.errors import UserError, listed

KEYS = ("images", "annotations", "categories")


def read_coco(document: dict[str, Any], place: str, names: ClassNames) -> Drawing:
    """List the masks of the images that have outlines.

    Objects lie on each other as `wsss.data.formats.coco` draws them, small ones on top; of a crowd
    (`iscrowd`) nothing is known but that it does not count: 255 where no single object is.

    Raises:
        UserError: An entry is malformed.
    """
    drawing = Drawing(tool="COCO JSON", knows_unsure=True)
    try:
        categories = _by_id(document["categories"], "name")
        images = _by_id(document["images"], "file_name")
        objects: dict[int, list[dict[str, Any]]] = {key: [] for key in images}
        others: dict[str, None] = {}
        for each in document["annotations"]:
            category, image_id = whole_number(each["category_id"]), whole_number(each["image_id"])
            if image_id not in images:
                others[str(image_id)] = None
                continue
            objects[image_id].append({**each, "category_id": category})
        if others and not any(objects.values()):
            raise ValueError(f"all objects are of images that are not listed: {listed(others, 3)}")
        boxes = []
        for image in document["images"]:
            picture = str(image["file_name"])
            found = objects[whole_number(image["id"])]
            outlined = tuple(each for each in found if each.get("segmentation"))
            if len(outlined) < len(found):
                boxes.append(picture)
            if not outlined:
                continue
            size = whole_number(image["height"]), whole_number(image["width"])
            at = f"{place}, {picture}"
            read = functools.partial(_read, outlined, size, categories, names, at)
            drawing.masks.append(DrawnMask(picture, at, read, size=size))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        reason = f"there is no {error}" if isinstance(error, KeyError) else str(error)
        raise UserError(f"an entry of this COCO JSON is malformed: {reason}", where=place) from None
    if boxes:
        drawing.notes.append(f"left out, boxes without an outline: in {listed(boxes, 3)}")
    if others:
        # Whoever takes some images out of a file often leaves their annotations in it.
        drawing.notes.append(
            f"left out, annotations of images that are not listed: {listed(others, 3)}"
        )
    return drawing


def _by_id(entries: list[dict[str, Any]], key: str) -> dict[int, str]:
    """Return id -> name.

    Raises:
        KeyError: An entry lacks one of them.
        ValueError: Two have the same id, or one has none that is a whole number.
    """
    found: dict[int, str] = {}
    for each in entries:
        number, name = whole_number(each["id"]), str(each[key])
        put_once(found, number, name)
    return found


def _read(
    objects: tuple[dict[str, Any], ...],
    size: tuple[int, int],
    categories: dict[int, str],
    names: ClassNames,
    place: str,
) -> Label:
    values = {}
    for key in {each.get("category_id") for each in objects}:
        if key not in categories:
            raise UserError(f"there is no category {key}", where=place)
        values[key] = names.label(categories[key], place)
    try:
        return draw_labels(objects, *size, values)
    except Exception as error:  # pycocotools raises whatever its C code meets
        raise UserError(f"an outline cannot be drawn: {error}", where=place) from None
