"""A plain folder: images/, labels.csv, and optionally classes.txt and masks/."""

from __future__ import annotations

import csv
import os
import sys
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import model_validator

from wsss.data.class_names import (
    ALPHABETICAL,
    CLASSES,
    FROM_FILE,
    in_order,
    order_note,
    read_classes,
)
from wsss.data.fingerprints import combined, folder_digest, is_folder, named_digest
from wsss.data.formats.pictures import MASKS, spelt_otherwise, split_off_val
from wsss.data.formats.registry import FORMATS, DataFormat, IndexSettings
from wsss.data.images import IMAGE_SUFFIXES
from wsss.data.index import Index
from wsss.data.listing import (
    MAX_CLASSES,
    Entry,
    FoundMasks,
    Listing,
    Nearest,
    Problem,
    bad_class_name,
    lines_of,
    names_in,
    nearest,
)
from wsss.data.tags import Cell, Tags, clean_name, read_tags
from wsss.errors import UserError
from wsss.runtime.lazy import Made
from wsss.runtime.names import NameMap, Names
from wsss.runtime.settings import BelowOne, impossible

IMAGES = "images"
LABELS = "labels.csv"
FOLDER_SETS = ("train", "val", "test")
EXAMPLE = "image,tags,set\nholiday_001.jpg,dog;sofa,train"


class FolderSettings(IndexSettings):
    """Which classes a plain folder has."""

    format: Literal["folder"] = "folder"
    """A plain folder of pictures."""

    classes: tuple[str, ...] = ()
    """Folder only: class names in label order; empty: classes.txt, else the tags, sorted."""

    val_share: BelowOne = 0.0
    """Share of the training pictures that become `val` where the data name no such set."""

    @model_validator(mode="after")
    def _classes_can_be_named(self) -> Self:
        for position, name in enumerate(self.classes):
            twice = "stands twice in the list" if name in self.classes[:position] else None
            reason = bad_class_name(name) or twice
            if reason is not None:
                raise impossible(f"class {name!r} {reason}", key="classes")
        if len(self.classes) > MAX_CLASSES:
            raise impossible(
                f"{len(self.classes)} classes are more than a label picture can hold",
                key="classes",
                expected=f"at most {MAX_CLASSES}",
            )
        return self


def require_folder(root: Path) -> None:
    """Check that `root` has images/ and labels.csv.

    Raises:
        UserError: What is missing and what it should hold.
    """
    if not (root / IMAGES).is_dir():
        raise UserError(
            f"there is no folder {IMAGES}/ here", where=root, fix=f"put the pictures in {IMAGES}/"
        )
    if not (root / LABELS).is_file():
        raise UserError(
            f"there is no {LABELS} here",
            where=root,
            expected="a line for each picture, such as:\n" + EXAMPLE,
        )


class _Pictures:
    """The pictures of images/, by name (file name without suffix)."""

    def __init__(self, root: Path, problems: list[Problem]) -> None:
        files, folders = [], set()
        with os.scandir(root / IMAGES) as found:
            for entry in found:
                files.append(entry.name)
                if is_folder(entry):
                    folders.add(entry.name)
        self.names, self._suffixes = Names(), list[str]()
        known: dict[str, int] = {}
        for name in sorted(files):
            if name.startswith("."):
                continue
            file = f"{IMAGES}/{name}"
            stem, suffix = os.path.splitext(name)  # noqa: PTH122 - a `Path` takes much longer
            if suffix.lower() not in IMAGE_SUFFIXES or name in folders:
                reason = f"not a picture ({', '.join(IMAGE_SUFFIXES)})"
                problems.append(Problem(file, 0, "file that is no picture", reason))
            elif stem in known:
                other = self.file(known[stem])
                reason = f"{other} has the same name but for its suffix"
                problems.append(Problem(file, 0, "two pictures of one name", reason))
            else:
                known[stem] = len(self.names)
                self.names.append(stem)
                self._suffixes.append(sys.intern(suffix))

    def file(self, position: int) -> str:
        """Return the file name of a picture."""
        return self.names[position] + self._suffixes[position]

    @cached_property
    def hint(self) -> Nearest:
        """What asks for the file that was meant."""
        return Nearest(self.files())

    def files(self) -> Iterator[str]:
        """Yield all file names."""
        return map(self.file, range(len(self.names)))


@dataclass(frozen=True)
class _Lines:
    """The lines of labels.csv, apart from empty ones.

    Attributes:
        header: Its columns.
        numbers: Line number of each.
        images: First cell of each.
        others: The other cells, one object for all that are the same.
    """

    header: list[str]
    numbers: array[int]
    images: Names
    others: list[tuple[str, ...]]

    @property
    def tags(self) -> Sequence[Cell]:
        """The second cells, with their lines."""
        return Made(self._tags_at, range(len(self.others)))

    def _tags_at(self, position: int) -> Cell:
        return Cell(self.numbers[position], next(iter(self.others[position]), ""))

    def __iter__(self) -> Iterator[tuple[int, list[str]]]:
        rows = zip(self.numbers, self.images, self.others, strict=True)
        return ((number, [image, *others]) for number, image, others in rows)


def _parse_labels(root: Path) -> _Lines:
    path = root / LABELS
    reader = csv.reader((f"{line}\n" for line in lines_of(path)), skipinitialspace=True)
    try:
        header = [cell.strip().lower() for cell in next(reader, [])]
    except csv.Error as error:
        raise UserError(f"this is not a CSV file: {error}", where=f"{path}, line 1") from None
    if header not in (["image", "tags"], ["image", "tags", "set"]):
        hint = "the columns are separated by commas, the tags in a cell by ';'"
        raise UserError(
            f"the first line is {','.join(header)[:200]!r}",
            where=f"{path}, line 1",
            expected="image,tags or image,tags,set",
            fix=f"{hint}. For example:\n{EXAMPLE}",
        )
    lines = _Lines(header, array("q"), Names(), [])
    same: dict[tuple[str, ...], tuple[str, ...]] = {}
    try:
        for cells in reader:
            if any(map(str.strip, cells)):
                lines.numbers.append(reader.line_num)
                lines.images.append(cells[0])
                others = tuple(cells[1:])
                lines.others.append(same.setdefault(others, others))
    except csv.Error as error:
        raise UserError(
            f"this is not a CSV file: {error}", where=f"{path}, line {reader.line_num}"
        ) from None
    return lines


def _classes_from_tags(
    cells: Sequence[Cell], tags: Tags, problems: list[Problem]
) -> tuple[str, ...]:
    first_line: dict[str, int] = {}
    for cell, names in zip(cells, tags.of, strict=True):
        for name in sorted(names.difference(first_line)):
            first_line[name] = cell.line
    spelling: dict[str, str] = {}
    for tag, line in first_line.items():
        other = spelling.setdefault(tag.casefold(), tag)
        if other != tag:
            reason = f"{tag!r}, but {other!r} in line {first_line[other]}: one class or two?"
            problems.append(Problem(LABELS, line, "tags that differ only in case", reason))
    return in_order(first_line)


def list_folder(settings: FolderSettings, root: Path) -> Listing:
    """List a plain folder.

    Without a `set` column every image is in `train`. Masks play no part: adding one never
    changes the list.

    Args:
        settings: The class names; empty: those of classes.txt, or else all tags, sorted as a
            person does.
        root: Folder with images/ and labels.csv.
    """
    require_folder(root)
    problems: list[Problem] = []
    lines = _parse_labels(root)
    pictures = _Pictures(root, problems)
    classes = tuple(map(clean_name, settings.classes)) or read_classes(root, problems)
    order = "as index.classes has them" if settings.classes else FROM_FILE
    cells = lines.tags
    tags = read_tags(cells, classes, file=LABELS)
    problems += tags.problems
    chosen = bool(classes) or (root / CLASSES).is_file()
    if not chosen:
        classes, order = _classes_from_tags(cells, tags, problems), ALPHABETICAL
    if len(classes) > MAX_CLASSES:
        reason = f"{len(classes)} classes, but a label picture holds at most {MAX_CLASSES}"
        problems.append(Problem(LABELS, 0, "too many classes", reason))
    listing = Listing(
        classes, problems=problems, chosen=chosen, notes=[*tags.notes, order_note(order)]
    )
    # The line of each picture; 0: none.
    listed = array("q", bytes(8 * len(pictures.names)))
    doubtful = {problem.line for problem in tags.problems}
    for (line, values), names in zip(lines, tags.of, strict=True):
        texts = [value.strip() for value in values]
        found = None if line in doubtful else sorted(names)
        _add_line(listing, lines.header, line, texts, found, pictures, listed)
    for position, line in enumerate(listed):
        if not line:
            reason = f"not listed in {LABELS}: add it there with its tags, or take it away"
            file = f"{IMAGES}/{pictures.file(position)}"
            problems.append(Problem(file, 0, "picture without a line", reason))
    split_off_val(listing, settings.val_share)
    return listing


def _add_line(
    listing: Listing,
    header: list[str],
    line: int,
    cells: list[str],
    tags: list[str] | None,
    pictures: _Pictures,
    listed: array[int],
) -> None:
    """Add the entry of one line of labels.csv, or say what is wrong with it.

    Its tags are None where something is wrong with them that has been said.
    """

    def problem(kind: str, reason: str) -> None:
        listing.problems.append(Problem(LABELS, line, kind, reason))

    if len(cells) != len(header):
        problem("malformed line", f"{len(cells)} cells instead of {len(header)}")
        return
    image, set_name = cells[0], cells[2] if len(header) == 3 else "train"
    position, name = pictures.names.position(image), image
    if position is None:
        name = Path(image).stem
        position = pictures.names.position(name)
    if position is None or image not in (name, pictures.file(position)):
        problem("missing image", f"there is no {IMAGES}/{image}{pictures.hint(image)}")
        return
    if listed[position]:
        problem("image listed twice", f"{name} is listed twice, first in line {listed[position]}")
        return
    listed[position] = line
    for tag in tags or ():
        reason = bad_class_name(tag)
        if reason is not None:
            problem("bad class name", f"{tag!r} {reason}")
        elif tag not in listing.classes:
            hint = nearest(tag, listing.classes)
            problem("unknown tag", f"{tag!r} is not in the class list{hint}")
    if set_name not in FOLDER_SETS:
        hint = nearest(set_name, FOLDER_SETS)
        problem("unknown set", f"{set_name!r} is none of {', '.join(FOLDER_SETS)}{hint}")
        return
    known = [tag for tag in tags or () if tag in listing.classes]
    listing.entries.append(
        Entry(
            name=name,
            path=f"{IMAGES}/{pictures.file(position)}",
            sets=(set_name,),
            tags=tuple(sorted(known, key=listing.classes.index)),
            file=LABELS,
            line=line,
            tags_file=LABELS,
            # What is reported as unknown or in doubt is not reported again as "no tags".
            may_be_untagged=set_name != "train" or tags is None or bool(tags),
        )
    )


def folder_mask_fingerprint(settings: IndexSettings, root: Path) -> str:
    """Return a hash of the masks' names and content."""
    return combined("folder", folder_digest(root / MASKS))


def find_folder_masks(settings: IndexSettings, root: Path, index: Index) -> FoundMasks:
    """Return the masks there are, and a problem for each mask that belongs to no image."""
    problems: list[Problem] = []
    return NameMap(_masks_of(root / MASKS, index.records.names, problems)), problems


def _masks_of(folder: Path, known: Names, problems: list[Problem]) -> Iterator[tuple[str, str]]:
    """Yield name and path of the masks of images, and add a problem for each of none."""
    hint = Nearest(known)
    if os.path.lexists(folder) and not folder.is_dir():
        reason = "this is no folder, or a link to one that is not there"
        problems.append(Problem(MASKS, 0, "masks in no folder", reason))
    otherwise = spelt_otherwise(folder)
    for name in names_in(folder):
        if name.startswith("."):
            continue
        file = f"{MASKS}/{name}"
        stem, suffix = os.path.splitext(name)  # noqa: PTH122 - as above
        if suffix.lower() != ".png":
            reason = "masks are PNG files (a lossy format would change the labels)"
            problems.append(Problem(file, 0, "mask that is no PNG", reason))
        elif stem not in known:
            reason = f"no image has this name{hint(stem)}"
            problems.append(Problem(file, 0, "mask without an image", reason))
        elif otherwise.get(stem, name) != name:
            reason = f"{otherwise[stem]} is a mask of the same picture: keep one of them"
            problems.append(Problem(file, 0, "two masks of one picture", reason))
        else:
            yield stem, file


def _list_fingerprint(settings: FolderSettings, root: Path) -> str:
    require_folder(root)
    return combined("folder", named_digest(root, (LABELS, CLASSES)), folder_digest(root / IMAGES))


def _recognise(root: Path) -> Mapping[str, Any] | None:
    if not (root / IMAGES).is_dir() and not (root / LABELS).exists():
        return None
    require_folder(root)
    _parse_labels(root)
    return {"format": "folder"}


FORMATS.register(
    DataFormat(
        name="folder",
        description="your own pictures",
        settings=FolderSettings,
        list_images=list_folder,
        find_masks=find_folder_masks,
        list_fingerprint=_list_fingerprint,
        mask_fingerprint=folder_mask_fingerprint,
        recognise=_recognise,
    )
)
