"""COCO JSON: polygons and run lengths."""

from __future__ import annotations

import functools
from typing import Any

from wsss.data.coco_entries import make_plain
from wsss.data.formats.coco import draw_labels
from wsss.data.formats.coco_shapes import has_outline
from wsss.data.imports.drawn import ClassNames, Drawing, DrawnMask, Label
from wsss.data.json_files import put_once, whole_number
from wsss.errors import UserError, listed


def read_coco(document: dict[str, Any], place: str, names: ClassNames) -> Drawing:
    """List the masks of the images that have outlines.

    Objects lie on each other as `wsss.data.formats.coco` draws them, small ones on top; of a crowd
    (`iscrowd`) nothing is known but that it does not count: 255 where no single object is.

    Raises:
        UserError: An entry is malformed.
    """
    drawing = Drawing(tool="COCO JSON", knows_unsure=True)
    make_plain(document, place)
    try:
        categories = _by_id(document["categories"], "name")
        images = _by_id(document["images"], "file_name")
    except ValueError as error:
        raise UserError(f"this COCO JSON is malformed: {error}", where=place) from None
    objects: dict[int | str, list[dict[str, Any]]] = {key: [] for key in images}
    others: dict[str, None] = {}
    for position, each in enumerate(document["annotations"]):
        if each["image_id"] in objects:
            # Of two that are as large the id says which is on top; some tools have text for it.
            order = {"id": position} if isinstance(each.get("id"), str) else {}
            objects[each["image_id"]].append({**each, **order})
        else:
            others[str(each["image_id"])] = None
    if others and not any(objects.values()):
        raise UserError(
            f"all objects are of images that are not listed: {listed(others, 3)}", where=place
        )
    boxes = []
    for image in document["images"]:
        picture, found = str(image["file_name"]), objects[image["id"]]
        outlined = tuple(each for each in found if has_outline(each))
        if len(outlined) < len(found):
            boxes.append(picture)
        if not outlined:
            continue
        at = f"{place}, {picture}"
        size = _size(image, at)
        read = functools.partial(_read, outlined, size, categories, names, at)
        drawing.masks.append(DrawnMask(picture, at, read, size=size))
    if boxes:
        drawing.notes.append(f"left out, boxes without an outline: in {listed(boxes, 3)}")
    if others:
        # Whoever takes some images out of a file often leaves their annotations in it.
        drawing.notes.append(
            f"left out, annotations of images that are not listed: {listed(others, 3)}"
        )
    return drawing


def _size(image: dict[str, Any], place: str) -> tuple[int, int]:
    try:
        return whole_number(image.get("height")), whole_number(image.get("width"))
    except (TypeError, ValueError):
        raise UserError(
            f"its height is {image.get('height')!r:.60}, its width {image.get('width')!r:.60}",
            where=place,
            expected="the picture's pixels, in which its outlines are",
        ) from None


def _by_id(entries: list[dict[str, Any]], key: str) -> dict[int | str, str]:
    """Return id -> name.

    Raises:
        ValueError: Two have the same id.
    """
    found: dict[int | str, str] = {}
    for each in entries:
        put_once(found, each["id"], str(each[key]))
    return found


def _read(
    objects: tuple[dict[str, Any], ...],
    size: tuple[int, int],
    categories: dict[int | str, str],
    names: ClassNames,
    place: str,
) -> Label:
    values = {}
    for key in {each["category_id"] for each in objects}:
        if key not in categories:
            raise UserError(f"there is no category {key}", where=place)
        values[key] = names.label(categories[key], place)
    try:
        return draw_labels(objects, *size, values)
    except Exception as error:  # pycocotools raises whatever its C code meets
        raise UserError(f"an outline cannot be drawn: {error}", where=place) from None
