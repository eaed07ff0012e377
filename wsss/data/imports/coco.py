"""COCO JSON: polygons and run lengths."""

from __future__ import annotations

import functools
from typing import Any

from wsss.data.formats.coco import draw_labels
from wsss.data.imports.drawn import ClassNames, Drawing, DrawnMask, Label
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
        categories = {int(each["id"]): str(each["name"]) for each in document["categories"]}
        objects: dict[int, list[dict[str, Any]]] = {}
        for each in document["annotations"]:
            objects.setdefault(int(each["image_id"]), []).append(each)
        boxes = []
        for image in document["images"]:
            picture = str(image["file_name"])
            found = objects.get(int(image["id"]), [])
            outlined = tuple(each for each in found if each.get("segmentation"))
            if len(outlined) < len(found):
                boxes.append(picture)
            if not outlined:
                continue
            size = int(image["height"]), int(image["width"])
            at = f"{place}, {picture}"
            read = functools.partial(_read, outlined, size, categories, names, at)
            drawing.masks.append(DrawnMask(picture, at, read))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(
            f"an entry of this COCO JSON is malformed: {error!r}", where=place
        ) from None
    if boxes:
        drawing.notes.append(f"left out, boxes without an outline: in {listed(boxes, 3)}")
    return drawing


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
