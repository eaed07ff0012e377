"""MS-COCO 2014: image list and tags from the annotation files, masks drawn from them once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from wsss.data.coco_entries import plain_id
from wsss.data.fingerprints import combined, content_digest, folder_digest
from wsss.data.formats.coco_shapes import is_crowd, object_mask
from wsss.data.formats.registry import FORMATS, DataFormat, IndexSettings
from wsss.data.images import IGNORE, MOST_MEGAPIXELS, write_label
from wsss.data.index import Index
from wsss.data.json_files import put_once, read_data_json, whole_number
from wsss.data.listing import (
    MAX_CLASSES,
    Entry,
    FoundMasks,
    Listing,
    Problem,
    class_problems,
    names_in,
    raise_problems,
)
from wsss.errors import UserError
from wsss.files import atomic_directory, canonical_json
from wsss.runtime.names import NameMap, Names
from wsss.runtime.pool import ordered_map
from wsss.runtime.progress import progress

COCO_SETS = {"train": "train2014", "val": "val2014"}
"""Set name -> folder of its images, which also names its annotation file."""

ANNOTATIONS = "annotations"
MASKS = "masks"
CATEGORIES = "categories.json"
OVERLAP_RULE = "smallest-on-top"
"""Crowds are drawn first, as 255; then the objects, largest first, so that of two objects that
overlap the one with fewer pixels is seen (on a tie the one with the higher annotation id)."""

_WHERE_TO_GET = (
    "get train2014.zip, val2014.zip and annotations_trainval2014.zip from "
    "https://cocodataset.org/#download, unpack them here, and give this place as the data root "
    "(wsss init PLACE, or roots in config.local.yaml)"
)


class CocoSettings(IndexSettings):
    """MS-COCO has no settings."""

    format: Literal["coco"] = "coco"
    """MS-COCO 2014."""


@dataclass(frozen=True)
class _Annotated:
    """One annotation file, read: categories by id, images by id, annotations by image id."""

    file: str
    categories: dict[int, str]
    images: dict[int, dict[str, Any]]
    objects: dict[int, list[dict[str, Any]]]


def _annotation_file(set_name: str) -> str:
    return f"{ANNOTATIONS}/instances_{COCO_SETS[set_name]}.json"


def annotation_files(root: Path) -> list[Path]:
    """Return the annotation files of the training and the validation set.

    Raises:
        UserError: One of them is missing; the message says where to get it.
    """
    paths = [root / _annotation_file(set_name) for set_name in COCO_SETS]
    missing = [path for path in paths if not path.is_file()]
    if missing:
        names = " and ".join(path.relative_to(root).as_posix() for path in missing)
        raise UserError(f"there is no {names} here", where=root, fix=_WHERE_TO_GET)
    return paths


def _load(root: Path, set_name: str, *, shapes: bool) -> _Annotated:
    """Read one annotation file; without `shapes` the objects keep only their category.

    Outlines are nearly all of COCO's gigabytes, so they are held only while they are drawn.
    """
    file = _annotation_file(set_name)
    try:
        values = read_data_json(root / file)
        categories: dict[int, str] = {}
        for each in values["categories"]:
            put_once(categories, whole_number(each["id"]), str(each["name"]))
        images: dict[int, dict[str, Any]] = {}
        for image in values["images"]:
            if not isinstance(image["id"], int):
                raise ValueError(f"image {image['id']!r}: its id is no number")
            put_once(images, image["id"], image)
            sides = whole_number(image["width"]), whole_number(image["height"])
            if min(sides) < 1 or sides[0] * sides[1] > MOST_MEGAPIXELS * 1e6:
                raise ValueError(f"image {image['id']} of {sides[0]} x {sides[1]} px")
            _ = str(image["file_name"])
        objects: dict[Any, list[dict[str, Any]]] = {}
        for position, each in enumerate(values["annotations"]):
            if "id" not in each:
                raise ValueError(f"annotation {position} of the list (from 0) has no id")
            each["category_id"] = whole_number(each["category_id"])
            found = each if shapes else {"category_id": each["category_id"]}
            _ = whole_number(each["id"]), each["segmentation"]
            objects.setdefault(plain_id(each["image_id"]), []).append(found)
        return _Annotated(file, categories, images, objects)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        lacking = f"there is no {error}" if isinstance(error, KeyError) else str(error)
        raise UserError(
            f"this is not a COCO instances file: {lacking}",
            where=root / file,
            expected="images (id, file_name, width, height), categories (id, name) and "
            "annotations (id, image_id, category_id, segmentation)",
        ) from None


def _each_set(root: Path, *, shapes: bool) -> Iterator[tuple[str, _Annotated]]:
    """Yield (set name, annotations), one set in memory at a time if the caller lets it go."""
    annotation_files(root)
    categories: dict[int, str] | None = None
    for set_name in COCO_SETS:
        annotated = _load(root, set_name, shapes=shapes)
        if not 0 < len(annotated.categories) <= MAX_CLASSES:
            raise UserError(
                f"{len(annotated.categories)} categories",
                where=root / annotated.file,
                expected=f"1 to {MAX_CLASSES}",
            )
        if categories is not None and annotated.categories != categories:
            raise UserError(
                "the training and the validation set name different categories",
                where=root / ANNOTATIONS,
                expected="the same ids and names in both",
            )
        categories = annotated.categories
        yield set_name, annotated
        del annotated  # before the next one is read


def _label_values(categories: dict[int, str]) -> dict[int, int]:
    """Return original category id -> label value: 1.. in the order of the ids."""
    return {category: value for value, category in enumerate(sorted(categories), start=1)}


def list_coco(settings: CocoSettings, root: Path) -> Listing:
    """List COCO 2014: sets `train` and `val`, classes in the order of their original ids.

    An image's tags are the categories of all its annotations, crowds too. Images without any
    object are listed without tags: training leaves them out, evaluation counts them as
    background.

    Args:
        settings: None.
        root: Folder with annotations/, train2014/ and val2014/.
    """
    loaded = dict(_each_set(root, shapes=False))
    categories, file = loaded["train"].categories, loaded["train"].file
    listing = Listing(tuple(categories[key] for key in sorted(categories)), chosen=True)
    listing.problems += class_problems(listing.classes, file=file)
    names: dict[str, str] = {}
    for set_name, annotated in loaded.items():
        _list_set(root, listing, set_name, annotated, names)
    return listing


def _list_set(
    root: Path, listing: Listing, set_name: str, annotated: _Annotated, names: dict[str, str]
) -> None:
    def problem(kind: str, reason: str) -> None:
        listing.problems.append(Problem(annotated.file, 0, kind, reason))

    folder = COCO_SETS[set_name]
    if not (root / folder).is_dir():
        raise UserError(f"there is no {folder}/ here", where=root, fix=_WHERE_TO_GET)
    for key in annotated.objects.keys() - annotated.images.keys():
        problem("annotation without an image", f"objects of image {key}, which is not listed")
    for key in sorted(annotated.images):
        image = annotated.images[key]
        file_name = str(image["file_name"])
        name = Path(file_name).stem
        if Path(file_name).name != file_name:
            problem("bad file name", f"image {key}: {file_name!r} is not a plain file name")
            continue
        if name in names:
            problem("image listed twice", f"{name} is listed twice, first in {names[name]}")
            continue
        names[name] = annotated.file
        found = {each["category_id"] for each in annotated.objects.get(key, [])}
        for category in found - annotated.categories.keys():
            problem("unknown tag", f"image {key}: category {category} is not listed")
        listing.entries.append(
            Entry(
                name=name,
                path=f"{folder}/{file_name}",
                sets=(set_name,),
                tags=tuple(
                    annotated.categories[category]
                    for category in sorted(found & annotated.categories.keys())
                ),
                file=annotated.file,
                line=0,
                tags_file=annotated.file,
                may_be_untagged=True,
                size=(int(image["width"]), int(image["height"])),
            )
        )


@dataclass(frozen=True)
class _Job:
    """What it takes to draw one image's labels."""

    path: Path
    height: int
    width: int
    objects: tuple[dict[str, Any], ...]
    label_values: dict[int, int]


def draw_labels(
    objects: tuple[dict[str, Any], ...], height: int, width: int, label_values: dict[int, int]
) -> NDArray[np.uint8]:
    """Draw an image's annotations by `OVERLAP_RULE`.

    Args:
        objects: COCO annotations: id, category_id, segmentation, iscrowd.
        height: Rows of the image.
        width: Columns of the image.
        label_values: Original category id -> label value.

    Returns:
        (H, W) uint8: 0 background, 1.. classes, 255 where a crowd and no single object is.

    Raises:
        ValueError: An annotation cannot be drawn; the message names it.
    """
    label = np.zeros((height, width), dtype=np.uint8)
    singles: list[tuple[int, int, int, NDArray[np.bool_]]] = []
    for annotation in objects:
        mask = object_mask(annotation, height, width)
        if is_crowd(annotation):
            label[mask] = IGNORE
        else:
            value = label_values[annotation["category_id"]]
            if "id" not in annotation:
                raise ValueError(f"an annotation of category {annotation['category_id']} has no id")
            singles.append((-int(mask.sum()), int(annotation["id"]), value, mask))
    for _, _, value, mask in sorted(singles, key=lambda single: single[:2]):
        label[mask] = value
    return label


def _draw(job: _Job) -> Problem | None:
    try:
        label = draw_labels(job.objects, job.height, job.width, job.label_values)
        write_label(job.path, label)
    except OSError:
        raise  # a full disk is no fault of the annotations
    except Exception as error:  # pycocotools raises whatever its C code meets
        words = str(error) if type(error) is ValueError else f"{type(error).__name__}: {error}"
        reason = f"{job.path.stem}: cannot draw its objects: {words}"
        return Problem(ANNOTATIONS, 0, "bad segmentation", reason)
    return None


def _jobs(annotated: _Annotated, folder: Path) -> Iterator[_Job]:
    values = _label_values(annotated.categories)
    for key, image in sorted(annotated.images.items()):
        path = folder / f"{Path(str(image['file_name'])).stem}.png"
        objects = tuple(annotated.objects.get(key, ()))
        yield _Job(path, int(image["height"]), int(image["width"]), objects, values)


def _draw_set(annotated: _Annotated, folder: Path, workers: int) -> list[Problem]:
    jobs, total = _jobs(annotated, folder), len(annotated.images)
    results = ordered_map(_draw, jobs, workers, chunk=64)
    reported = progress(results, total=total, description=f"drawing masks of {folder.name}")
    return [problem for problem in reported if problem is not None]


def rasterise_masks(root: Path, output: Path | None = None, *, workers: int = 2) -> None:
    """Draw the label PNGs of both sets by `OVERLAP_RULE`; needed once, for evaluation only.

    Args:
        root: Folder with annotations/.
        output: Folder to write, at once: train2014/*.png, val2014/*.png and categories.json
            (rule, and for each label value the class name and original id). Default: masks/
            under the root, which is where the mask table looks for them.
        workers: Processes that draw.

    Raises:
        UserError: An annotation file is missing or malformed.
    """
    problems: list[Problem] = []
    categories: dict[int, str] = {}
    with atomic_directory(root / MASKS if output is None else output) as folder:
        for set_name, annotated in _each_set(root, shapes=True):
            categories = annotated.categories
            place = folder / COCO_SETS[set_name]
            place.mkdir()
            problems += _draw_set(annotated, place, workers)
            del annotated
        raise_problems(problems, root=root, what="these annotations")
        table = {
            "rule": OVERLAP_RULE,
            "classes": [
                {"label": value, "name": categories[category], "original_id": category}
                for category, value in _label_values(categories).items()
            ],
        }
        (folder / CATEGORIES).write_text(canonical_json(table), encoding="utf-8")


def find_coco_masks(settings: CocoSettings, root: Path, index: Index) -> FoundMasks:
    """Return the masks that `rasterise_masks` drew, and a problem for each that is missing.

    Raises:
        UserError: They have not been drawn, or by another rule or for other classes.
    """
    table_path = root / MASKS / CATEGORIES
    try:
        table = read_data_json(table_path)
        rule, drawn = table["rule"], tuple(each["name"] for each in table["classes"])
    except (UserError, KeyError, TypeError):
        raise UserError(
            f"there is no {MASKS}/{CATEGORIES} here: the label PNGs have not been drawn",
            where=root,
            fix="draw them once: wsss coco-masks --root ROOT",
        ) from None
    if rule != OVERLAP_RULE or index.classes != drawn:
        raise UserError(
            "these label PNGs were drawn by another rule or for other classes",
            where=table_path,
            fix="delete the folder and draw them again: wsss coco-masks --root ROOT",
        )
    there = Names(
        f"{MASKS}/{folder}/{name}"
        for folder in COCO_SETS.values()
        for name in names_in(root / MASKS / folder)
    ).in_order()
    problems: list[Problem] = []

    def found() -> Iterator[tuple[str, str]]:
        for record in index.records:
            file = f"{MASKS}/{Path(record.path).parent}/{record.name}.png"
            if file in there:
                yield record.name, file
            else:
                reason = "this mask does not exist; draw the masks again"
                problems.append(Problem(file, 0, "missing mask", reason))

    return NameMap(found()), problems


def _list_fingerprint(settings: CocoSettings, root: Path) -> str:
    annotations = [f"{path.name} {content_digest(path)}" for path in annotation_files(root)]
    pictures = [folder_digest(root / folder) for folder in COCO_SETS.values()]
    return combined("coco", *annotations, *pictures)


def mask_fingerprint(settings: CocoSettings, root: Path) -> str:
    """Return a hash of the annotations and the rule that draws them."""
    return combined(f"coco {OVERLAP_RULE}", *(content_digest(p) for p in annotation_files(root)))


def _recognise(root: Path) -> Mapping[str, Any] | None:
    if not any((root / _annotation_file(name)).exists() for name in COCO_SETS):
        return None
    annotation_files(root)
    return {"format": "coco"}


FORMATS.register(
    DataFormat(
        name="coco",
        description="MS-COCO 2014",
        fixed_classes=True,
        settings=CocoSettings,
        list_images=list_coco,
        find_masks=find_coco_masks,
        list_fingerprint=_list_fingerprint,
        mask_fingerprint=mask_fingerprint,
        source="MS-COCO 2014 (the folder with train2014, val2014, annotations), from "
        "https://cocodataset.org/#download",
        draws_masks=True,
        recognise=_recognise,
    )
)
