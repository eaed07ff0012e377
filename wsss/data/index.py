"""The index: which images there are, in which sets, with which tags. Every stage reads it.

Building one from a data set is `wsss.data.build`, apart from here, so that a change to a data
set format concerns the index stage and no training.
"""

from __future__ import annotations

import csv
import hashlib
import re
from array import array
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from os import PathLike
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wsss.data.records import ImageRecord as ImageRecord
from wsss.data.records import Mask as Mask
from wsss.data.records import Records as Records
from wsss.errors import UserError, listed
from wsss.files import checked_name, opened_text, read_text, write_text, written_text
from wsss.runtime.names import NameMap, Positions

INDEX_COLUMNS = ("name", "sets", "tags", "width", "height", "path")
MASK_COLUMNS = ("name", "mask")
PICTURES, MASKS = "pictures.sha256", "masks.sha256"
"""Beside the lists: the content of the files that they name, as `sha256sum` writes it.

`stages.py` has these names, too: no training is to depend on it.
"""
TRAINING_SETS = ("train_aug", "train")
"""Sets of images to train on: the first that there is."""
MASK_FIX = "correct the mask or run the index again"
"""What to do about a mask that does not fit its picture."""
_SIDE = re.compile(r"[1-9][0-9]{0,8}")


@dataclass(frozen=True, init=False)
class Index:
    """All images of a data set.

    Attributes:
        classes: Class names without the background; the label value of a class is its
            position + 1 (0 is background, 255 is "ignore").
        records: The images, sorted by name.
    """

    classes: tuple[str, ...]
    records: Records

    def __init__(self, classes: tuple[str, ...], records: Iterable[ImageRecord]) -> None:
        object.__setattr__(self, "classes", classes)
        kept = records if isinstance(records, Records) else Records(records)
        object.__setattr__(self, "records", kept)

    @cached_property
    def _positions(self) -> dict[str, int]:
        return {name: position for position, name in enumerate(self.classes)}

    @property
    def sets(self) -> tuple[str, ...]:
        """The names of the sets that have images, sorted."""
        return tuple(sorted(self.records.sets))

    def subset(self, set_name: str) -> Index:
        """Return the images of one set.

        Raises:
            UserError: No image is in that set; the message names the sets there are.
        """
        return Index(self.classes, self.records.take(self._in_set(set_name)))

    def _in_set(self, set_name: str) -> Mask:
        found = self.records.in_sets((set_name,))
        if not found.any():
            raise UserError(
                f"no image is in the set {set_name!r}",
                expected=f"one of {', '.join(self.sets) or '(this index has no sets)'}",
            )
        return found

    def trained(self) -> Mask:
        """Return which images are trained on, (N,): `train_aug` where there is one, else `train`.

        Images without tags are left out: nothing can be learnt from them here.

        Raises:
            UserError: There is no such set, or none of its images has a tag.
        """
        first = next((name for name in TRAINING_SETS if name in self.sets), TRAINING_SETS[-1])
        in_set = self._in_set(first)
        found: Mask = in_set & self.records.tagged
        if not found.any():
            raise UserError("no training image has a tag", expected="at least one tagged image")
        return found

    def training_set(self) -> Index:
        """Return the images to train on, of which `trained` says which they are.

        Raises:
            UserError: As of `trained`.
        """
        return self.part(self.trained())

    def part(self, chosen: Mask | Positions) -> Index:
        """Return some of the images, in order, with the same classes.

        Whoever holds nothing else lets go of the others, of which there may be a million.

        Args:
            chosen: Which of the images, (N,) bool, or where they stand, (M,).
        """
        return Index(self.classes, self.records.take(chosen))

    def class_indices(self, record: ImageRecord) -> tuple[int, ...]:
        """Return the positions (from 0, ascending) of the record's tags among the classes."""
        return tuple(sorted(self._positions[tag] for tag in record.tags))

    def multi_hot(self) -> NDArray[np.float32]:
        """Return (N, C) float32: 1 where the image has the tag, 0 elsewhere."""
        return self.records.multi_hot(self.classes)


def classes_path(index_path: str | PathLike[str]) -> Path:
    """Return where the class list of the index at `index_path` lies: beside it."""
    return Path(index_path).parent / "classes.txt"


def _write_table(
    path: str | PathLike[str], columns: Iterable[str], rows: Iterable[Iterable[object]]
) -> None:
    with written_text(path) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)


def _read_table(path: Path, columns: tuple[str, ...]) -> Iterator[tuple[int, list[str]]]:
    """Yield (line number, cells) of a CSV file with exactly these columns."""
    rows = _rows(path)
    _, header = next(rows, (0, []))
    if tuple(header) != columns:
        raise UserError(
            f"the first line is {','.join(header)!r}",
            where=path,
            expected=",".join(columns),
            fix="let the index stage write this file again",
        )
    for line, cells in rows:
        if len(cells) != len(columns):
            raise UserError(
                f"a line with {len(cells)} cells",
                where=f"{path}, line {line}",
                expected=f"{len(columns)}: {','.join(columns)}",
            )
        yield line, cells


def _rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    with opened_text(path) as file:
        reader = csv.reader(file, strict=True)
        try:
            for cells in reader:
                yield reader.line_num, cells
        except csv.Error as error:
            raise UserError(
                f"this is not a table: {error}", where=f"{path}, line {reader.line_num}"
            ) from None


def _split(cell: str) -> tuple[str, ...]:
    return tuple(cell.split(";")) if cell else ()


def write_index(index: Index, path: str | PathLike[str]) -> None:
    """Write `path` (index.csv) and classes.txt beside it, each at once."""
    write_text(classes_path(path), "".join(f"{name}\n" for name in index.classes))
    rows = (
        (r.name, ";".join(r.sets), ";".join(r.tags), r.width, r.height, r.path)
        for r in index.records
    )
    _write_table(path, INDEX_COLUMNS, rows)


def read_index(path: str | PathLike[str]) -> Index:
    """Read index.csv and the classes.txt beside it.

    Raises:
        UserError: A file is missing or was not written by `write_index`.
    """
    try:
        classes = tuple(read_text(classes_path(path)).splitlines())
    except UserError as error:
        raise UserError(
            f"cannot read the class list: {error.found}", where=error.where, fix=error.fix
        ) from None
    known = set(classes)
    if len(known) < len(classes):
        twice = next(name for name in classes if classes.count(name) > 1)
        raise UserError(
            f"the class {twice!r} stands twice",
            where=classes_path(path),
            fix="let the index stage write this file again",
        )
    records, lines = Records(), _Lines()
    for line, (name, sets, tags, width, height, image) in _read_table(Path(path), INDEX_COLUMNS):
        if not (_SIDE.fullmatch(width) and _SIDE.fullmatch(height)):
            raise UserError(
                f"the size {width[:20]!r} x {height[:20]!r}",
                where=f"{path}, line {line}",
                expected="pixels",
            )
        unknown = [tag for tag in _split(tags) if tag not in known]
        if unknown:
            raise UserError(
                f"tag {unknown[0]!r} is not in classes.txt", where=f"{path}, line {line}"
            )
        first = lines.first(records, name, line)
        if first != line:
            raise UserError(
                f"the picture {name!r} stands twice",
                where=f"{path}, line {first} and line {line}",
                fix="let the index stage write this file again",
            )
        for file in (name, image):
            checked_name(file, where=f"{path}, line {line}")
        records.append(
            ImageRecord(name, _split(sets), _split(tags), int(width), int(height), image)
        )
    return Index(classes, records.by_name())


class _Lines:
    """Where each name stands in a table, to tell one that comes twice."""

    def __init__(self) -> None:
        self._lines = array("q")
        self._of: dict[str, int] | None = None

    def first(self, records: Records, name: str, line: int) -> int:
        """Return the first line with a name, which may be this one, before it is added."""
        if self._of is None:
            if not len(records) or name > records.names[-1]:
                # Ascending, as we write them: it cannot have been there.
                self._lines.append(line)
                return line
            self._of = dict(zip(records.names, self._lines, strict=True))
        return self._of.setdefault(name, line)


def contents_hash(index_path: str | PathLike[str], index: Index) -> str | None:
    """Return a hash of the pictures' content, so that no training goes on with others.

    Args:
        index_path: The index that `index` is of, or is a part of, in its order.
        index: The pictures.

    Returns:
        16 hexadecimal digits; None: what the index stage saw of them is not beside its list.
    """
    path = Path(index_path).with_name(PICTURES)
    if not path.is_file():
        return None
    paths = iter(index.records.paths)
    wanted = next(paths, None)
    digest = hashlib.sha256()
    with opened_text(path) as lines:
        for line in lines:
            content, _, file = line.rstrip("\n").partition("  ")
            if file == wanted:
                digest.update(content.encode())
                wanted = next(paths, None)
    return digest.hexdigest()[:16] if wanted is None else None


def write_masks(masks: Mapping[str, str], path: str | PathLike[str]) -> None:
    """Write masks.csv: image name, path of its mask relative to the data root; sorted."""
    _write_table(path, MASK_COLUMNS, ((name, masks[name]) for name in sorted(masks)))


def read_masks(path: str | PathLike[str]) -> NameMap:
    """Read masks.csv: image name to path of its mask relative to the data root."""

    def pairs() -> Iterator[tuple[str, str]]:
        for line, (name, mask) in _read_table(Path(path), MASK_COLUMNS):
            place = f"{path}, line {line}"
            yield checked_name(name, where=place), checked_name(mask, where=place)

    return NameMap(pairs())


def require_labels(index: Index, known: Container[str], *, where: Path, fix: str) -> None:
    """Check that every image has a label map.

    Args:
        index: The images.
        known: The names of those with one, such as a mapping from them.
        where: Where the label maps were looked for.
        fix: What to do about missing ones.

    Raises:
        UserError: Some have none.
    """
    missing = [name for name in index.records.names if name not in known]
    if missing:
        raise UserError(
            f"{len(missing)} of {len(index.records)} training images have no label map: "
            f"{listed(missing)}",
            where=where,
            expected="one for every image of the training set",
            fix=fix,
        )


def require_truth(kind: str, trained: Index, masks: Container[str], *, where: Path) -> None:
    """Check that a segmentation has the masks that it is to learn from.

    Args:
        kind: What it learns from, as `segmentation.labels` has it.
        trained: The images that are trained on.
        masks: Names of the images that have a mask.
        where: What to name as the place.

    Raises:
        UserError: It is `ground_truth`, and an image has no mask; or `mixed`, and none has one,
            so that nothing would be mixed.
    """
    if kind == "ground_truth":
        fix = "add the masks, or train with segmentation.labels: pseudo or mixed"
        require_labels(trained, masks, where=where, fix=fix)
    elif kind == "mixed" and not any(name in masks for name in trained.records.names):
        raise UserError(
            f"segmentation.labels is 'mixed', and none of the {len(trained.records)} training "
            "pictures has a mask",
            where=where,
            expected="a mask of at least one of them; those of pictures that are not trained on "
            "only score",
            fix="train with segmentation.labels: pseudo, until there are masks to learn from",
        )
