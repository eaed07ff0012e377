"""PASCAL VOC devkit: lists, tags from XML files or `cls_labels.npy`, masks."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from array import array
from collections.abc import Iterable, Iterator, Mapping
from heapq import merge
from itertools import groupby
from pathlib import Path
from typing import Any, Literal

import numpy as np

from wsss.data.fingerprints import combined, content_digest, folder_digest, named_digest
from wsss.data.formats.cls_labels import read_cls_labels
from wsss.data.formats.registry import FORMATS, DataFormat, IndexSettings
from wsss.data.index import TRAINING_SETS, Index
from wsss.data.listing import (
    Entry,
    FoundMasks,
    Listing,
    Problem,
    lines_of,
    names_in,
    require_file,
)
from wsss.data.tags import clean_name
from wsss.errors import UserError
from wsss.runtime.names import NamedMapping, NameMap, Names

VOC_CLASSES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa"),
    *("train", "tvmonitor"),
)
VOC_SETS = ("train", "train_aug", "trainval", "val", "test")
LISTS = "ImageSets/Segmentation"
IMAGES = "JPEGImages"
ANNOTATIONS = "Annotations"
CLS_LABELS = "cls_labels.npy"
MASK_FOLDERS = ("SegmentationClass", "SegmentationClassAug")
"""Official masks first; the augmented ones (SBD) where there is no official one."""

_NAME = re.compile(r"[A-Za-z0-9_\-]+")
# The augmented list is mostly spread as pairs of paths, image and mask.
_PATHS = re.compile(r"/?JPEGImages/(?P<name>[A-Za-z0-9_\-]+)\.jpg(\s+\S+\.png)?")

TagSource = Literal["auto", "annotations", "cls_labels"]


# Where the folder lies in those that archives unpack to.
_NESTED = ("VOC2012", "VOCdevkit/VOC2012")


class VocSettings(IndexSettings):
    """Where the tags of a VOC devkit come from."""

    format: Literal["voc"] = "voc"
    """PASCAL VOC devkit."""

    tags_from: TagSource = "auto"
    """VOC only. auto: XML and cls_labels.npy together, which must agree where both exist."""


def require_voc(root: Path) -> None:
    """Check that `root` looks like a VOC devkit.

    Raises:
        UserError: What is missing, and where to get it.
    """
    for needed in (LISTS, IMAGES):
        if not (root / needed).is_dir():
            inside = [each for each in _NESTED if (root / each).is_dir()]
            raise UserError(
                f"there is no {needed}/ here, so this is not a VOC devkit",
                where=root,
                expected="the folder VOC2012 of VOCtrainval_11-May-2012.tar",
                fix=f"give {root / inside[0]} as the data root"
                if inside
                else "get it from http://host.robots.ox.ac.uk/pascal/VOC/voc2012/ and give its "
                "place as the data root (wsss init PLACE, or roots in config.local.yaml)",
            )


def list_files(root: Path) -> list[Path]:
    """Return the list files there are, in the order of `VOC_SETS`."""
    paths = (root / LISTS / f"{name}.txt" for name in VOC_SETS)
    return [path for path in paths if path.is_file()]


class _List(NamedMapping[int]):
    """Name -> line number of a list file, in the order of the names; the first line of a name.

    Args:
        names: All that it lists.
        lines: Where.
    """

    def __init__(self, names: Names, lines: array[int]) -> None:
        self.twice: list[tuple[str, int, int]] = []
        """Each name that comes again: itself, that line, the first one."""
        if not names.ascending:
            first: list[int] = []
            for place in names.order().tolist():
                if first and names[place] == names[first[-1]]:
                    self.twice.append((names[place], lines[place], lines[first[-1]]))
                else:
                    first.append(place)
            names = names.take(np.array(first, np.int64))
            names.ascending = True
            lines = array("q", (lines[place] for place in first))
        super().__init__(names)
        self._lines = lines

    def _at(self, position: int) -> int:
        return self._lines[position]


def _every(lists: Iterable[_List]) -> Iterator[str]:
    """Yield each name that any list has, in order."""
    return (name for name, _ in groupby(merge(*lists)))


def _read_list(path: Path, root: Path, problems: list[Problem]) -> _List:
    file = path.relative_to(root).as_posix()
    names, lines = Names(), array("q")
    for number, line in enumerate(lines_of(path), start=1):
        text = line.strip()
        if not text:
            continue
        match = _PATHS.fullmatch(text)
        name = match["name"] if match else text
        if not _NAME.fullmatch(name):
            reason = f"{text[:60]!r} is not an image name"
            problems.append(Problem(file, number, "line that is no image name", reason))
        else:
            names.append(name)
            lines.append(number)
    found = _List(names, lines)
    for name, number, first in found.twice:
        reason = f"{name} is listed twice, first in line {first}"
        problems.append(Problem(file, number, "image listed twice", reason))
    return found


def _xml_tags(path: Path, root: Path, problems: list[Problem]) -> set[str] | None:
    """Return the classes of all objects of an annotation, None where there is no such file."""
    file = path.relative_to(root).as_posix()
    try:
        require_file(path)
        text = path.read_text(encoding="utf-8")
        objects = ElementTree.fromstring(text).findall("object")
    except FileNotFoundError:
        return None
    except (ElementTree.ParseError, UnicodeDecodeError, OSError, UserError) as error:
        reason = error.found if isinstance(error, UserError) else error
        problems.append(Problem(file, 0, "unreadable annotation", f"cannot read it: {reason}"))
        return None
    tags = {clean_name(element.findtext("name") or "") for element in objects}
    for tag in tags.difference(VOC_CLASSES):
        position = text.find(f"<name>{tag}</name>")
        line = text.count("\n", 0, position) + 1 if position >= 0 else 0
        reason = f"{tag!r} is not one of the 20 VOC classes"
        problems.append(Problem(file, line, "unknown tag", reason))
    return tags.intersection(VOC_CLASSES)


class _Tags:
    """Looks up an image's tags in the sources that the setting allows."""

    def __init__(self, root: Path, source: TagSource, problems: list[Problem]) -> None:
        self._root = root
        self._problems = problems
        self._use_xml = source in ("auto", "annotations")
        self._table: dict[str, tuple[int, ...]] | None = None
        table_path = root / CLS_LABELS
        if source == "cls_labels" or (source == "auto" and table_path.is_file()):
            require_file(table_path)
            self._table = read_cls_labels(table_path, len(VOC_CLASSES))
        if source == "annotations" and not (root / ANNOTATIONS).is_dir():
            raise UserError(
                f"there is no {ANNOTATIONS}/ here", where=root, fix="or set index.tags_from: auto"
            )

    def of(self, name: str) -> set[str]:
        from_xml: set[str] | None = None
        from_table: set[str] | None = None
        xml_path = self._root / ANNOTATIONS / f"{name}.xml"
        if self._use_xml:
            from_xml = _xml_tags(xml_path, self._root, self._problems)
        if self._table is not None and name in self._table:
            from_table = {VOC_CLASSES[position] for position in self._table[name]}
        if from_xml is not None and from_table is not None and from_xml != from_table:
            reason = (
                f"its objects are {', '.join(sorted(from_xml)) or 'none'}, "
                f"but {CLS_LABELS} says {', '.join(sorted(from_table)) or 'none'}"
            )
            file = xml_path.relative_to(self._root).as_posix()
            self._problems.append(Problem(file, 0, "tag sources that disagree", reason))
        return from_xml if from_xml is not None else from_table or set()

    def file(self) -> str:
        """Name the sources, for messages."""
        sources = [f"{ANNOTATIONS}/*.xml"] * self._use_xml
        return " or ".join(sources + [CLS_LABELS] * (self._table is not None))


def list_voc(settings: VocSettings, root: Path) -> Listing:
    """List a VOC devkit.

    All objects of an annotation count towards the tags, "difficult" ones too. Test images need
    no tags, and images of `val` none either.

    Args:
        settings: Which source of tags to use.
        root: The folder that holds JPEGImages/ and ImageSets/.
    """
    require_voc(root)
    listing = Listing(VOC_CLASSES, chosen=True)
    paths = list_files(root)
    if not paths:
        raise UserError(
            "there is no list of images here",
            where=root / LISTS,
            expected=f"one or more of {', '.join(f'{name}.txt' for name in VOC_SETS)}",
        )
    lists = {path.stem: _read_list(path, root, listing.problems) for path in paths}
    listing.problems += _overlaps(lists)
    tags = _Tags(root, settings.tags_from, listing.problems)
    for name in _every(lists.values()):
        sets = tuple(each for each in VOC_SETS if name in lists.get(each, ()))
        listing.entries.append(
            Entry(
                name=name,
                path=f"{IMAGES}/{name}.jpg",
                sets=sets,
                tags=tuple(sorted(tags.of(name), key=VOC_CLASSES.index)),
                file=f"{LISTS}/{sets[0]}.txt",
                line=lists[sets[0]][name],
                tags_file=tags.file(),
                may_be_untagged=not set(sets).intersection(TRAINING_SETS),
            )
        )
    return listing


def _overlaps(lists: Mapping[str, _List]) -> Iterable[Problem]:
    for held_out in ("val", "test"):
        for training in TRAINING_SETS:
            trained = lists.get(training, ())
            for name in (each for each in lists.get(held_out, ()) if each in trained):
                reason = (
                    f"{name} is also in {training}.txt, line {lists[training][name]}: "
                    "an image to score on must not be trained on"
                )
                file, line = f"{LISTS}/{held_out}.txt", lists[held_out][name]
                yield Problem(file, line, "image in a training and a held-out set", reason)


def find_voc_masks(settings: VocSettings, root: Path, index: Index) -> FoundMasks:
    """Return the masks there are, and a problem for each of the official lists that is not.

    Each image of the official lists has a mask in the devkit.
    """
    masks = {
        folder: (name[:-4] for name in names_in(root / folder) if name.endswith(".png"))
        for folder in MASK_FOLDERS
    }
    there = {folder: Names(names).in_order() for folder, names in masks.items()}
    problems: list[Problem] = []

    def found() -> Iterator[tuple[str, str]]:
        for record in index.records:
            name = record.name
            folder = next((folder for folder in MASK_FOLDERS if name in there[folder]), None)
            if folder is not None:
                yield name, f"{folder}/{name}.png"
            elif {"train", "val"}.intersection(record.sets) and any(there.values()):
                file = f"{MASK_FOLDERS[0]}/{name}.png"
                problems.append(Problem(file, 0, "missing mask", "this mask does not exist"))

    return NameMap(found()), problems


def _list_fingerprint(settings: VocSettings, root: Path) -> str:
    require_voc(root)
    paths = list_files(root)
    lists = [f"{path.name} {content_digest(path)}" for path in paths]
    tags = content_digest(root / CLS_LABELS), folder_digest(root / ANNOTATIONS)
    # Of the devkit's pictures, those of other tasks do not count.
    names = _every([_read_list(path, root, []) for path in paths])
    pictures = named_digest(root, (f"{IMAGES}/{name}.jpg" for name in names))
    return combined("voc", *lists, *tags, pictures)


def _mask_fingerprint(settings: VocSettings, root: Path) -> str:
    return combined("voc", *(folder_digest(root / folder) for folder in MASK_FOLDERS))


def _recognise(root: Path) -> Mapping[str, Any] | None:
    parts = (LISTS, IMAGES, ANNOTATIONS, *MASK_FOLDERS, *_NESTED)
    if not any((root / part).is_dir() for part in parts):
        return None
    require_voc(root)
    return {"format": "voc"}


FORMATS.register(
    DataFormat(
        name="voc",
        description="PASCAL VOC devkit",
        fixed_classes=True,
        settings=VocSettings,
        list_images=list_voc,
        find_masks=find_voc_masks,
        list_fingerprint=_list_fingerprint,
        mask_fingerprint=_mask_fingerprint,
        recognise=_recognise,
        source="PASCAL VOC 2012 (the folder with JPEGImages, ImageSets, ...), from "
        "http://host.robots.ox.ac.uk/pascal/VOC/voc2012/",
    )
)
