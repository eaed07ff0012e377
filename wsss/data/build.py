"""Building the index and the mask table: all formats, all checks, one report.

Everything is checked before anything is written, and every offender is listed, so that a data
set is mended in one round.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np

from wsss.data.config import IndexConfig
from wsss.data.formats import coco, voc
from wsss.data.formats.folder import find_folder_masks, list_folder, require_folder
from wsss.data.images import probe_image, read_label
from wsss.data.index import ImageRecord, Index
from wsss.data.listing import Entry, Listing, Problem, raise_problems
from wsss.errors import UserError, listed
from wsss.runtime.pool import ordered_map
from wsss.runtime.progress import progress

_THREADS = 8  # files are waited for more than computed on
_CHUNK = 64
_T = TypeVar("_T")
_R = TypeVar("_R")


def _list(config: IndexConfig, root: Path) -> Listing:
    _require_root(root)
    if config.format == "voc":
        return voc.list_voc(root, config.tags_from)
    if config.format == "coco":
        return coco.list_coco(root)
    return list_folder(root, config.classes)


def _require_root(root: Path) -> None:
    if not root.is_dir():
        raise UserError(
            "the data root does not exist",
            where=root,
            fix="say where the data set lies, in config.local.yaml",
        )


def _in_threads(function: Callable[[_T], _R], items: Sequence[_T], what: str) -> list[_R]:
    done = ordered_map(function, items, _THREADS, threads=True, chunk=_CHUNK)
    return list(progress(done, total=len(items), description=what))


def build_index(config: IndexConfig, root: Path) -> Index:
    """Read a data set and check all of it.

    Args:
        config: Format and source of the tags.
        root: Data root; the paths in the index are relative to it.

    Returns:
        The index, sorted by name.

    Raises:
        UserError: One error that lists every offender with file, line and reason: images that
            are missing, unreadable or without tags in a training set, unknown tags, names
            listed twice, images both in a training and a held-out set, malformed lines.
    """
    listing = _list(config, root)
    problems = list(listing.problems)

    def check(entry: Entry) -> ImageRecord | Problem:
        try:
            width, height = probe_image(root / entry.path)
        except UserError as error:
            if not (root / entry.path).exists():
                reason = f"there is no {entry.path}"
                return Problem(entry.file, entry.line, "missing image", reason)
            return Problem(entry.path, 0, "unreadable image", error.found)
        if entry.size is not None and entry.size != (width, height):
            reason = (
                f"it is {width} x {height}, but {entry.file} says {entry.size[0]} x {entry.size[1]}"
            )
            return Problem(entry.path, 0, "image of another size", reason)
        return ImageRecord(entry.name, entry.sets, entry.tags, width, height, entry.path)

    records: list[ImageRecord] = []
    results = _in_threads(check, listing.entries, "checking images")
    for entry, result in zip(listing.entries, results, strict=True):
        if isinstance(result, Problem):
            problems.append(result)
        else:
            records.append(result)
        if not entry.tags and not entry.may_be_untagged:
            reason = f"{entry.name} has no tags (looked in {entry.tags_file})"
            problems.append(Problem(entry.file, entry.line, "image without tags", reason))
    raise_problems(problems, root=root, what="this data set")
    if not records:
        raise UserError("this data set lists no image", where=root)
    return Index(listing.classes, tuple(sorted(records, key=lambda record: record.name)))


def _find_masks(
    config: IndexConfig, root: Path, index: Index
) -> tuple[dict[str, str], list[Problem]]:
    names = [record.name for record in index.records]
    if config.format == "voc":
        official = {"train", "val"}
        wanted = {record.name for record in index.records if official.intersection(record.sets)}
        return voc.find_voc_masks(root, wanted, names)
    if config.format == "coco":
        return coco.find_coco_masks(root, index)
    return find_folder_masks(root, names)


def build_masks(config: IndexConfig, root: Path, index: Index) -> dict[str, str]:
    """Find the masks of an index's images and check them all; training never needs this.

    Args:
        config: Format of the data set.
        root: Data root.
        index: The data set's index.

    Returns:
        Image name -> path of its mask relative to the root, for the images that have one.

    Raises:
        UserError: One error that lists every mask that is unreadable, of another size than its
            image, holds values other than 0..classes and 255, or belongs to no image.
    """
    _require_root(root)
    masks, problems = _find_masks(config, root, index)

    def check(record: ImageRecord) -> Problem | None:
        file = masks[record.name]
        try:
            label = read_label(root / file)
        except UserError as error:
            return Problem(file, 0, "unreadable mask", error.found)
        height, width = label.shape
        if (width, height) != (record.width, record.height):
            reason = f"it is {width} x {height}, its image {record.width} x {record.height}"
            return Problem(file, 0, "mask of another size", reason)
        values = np.flatnonzero(np.bincount(label.ravel(), minlength=256))
        wrong = [int(value) for value in values if len(index.classes) < value < 255]
        if wrong:
            reason = f"it holds {listed(wrong, 5)}, but labels are 0..{len(index.classes)} and 255"
            return Problem(file, 0, "mask with unknown labels", reason)
        return None

    records = [record for record in index.records if record.name in masks]
    results = _in_threads(check, records, "checking masks")
    problems += [problem for problem in results if problem is not None]
    raise_problems(problems, root=root, what="the masks of this data set")
    return dict(sorted(masks.items()))


_WHOLE_BYTES = 8 << 20
_END_BYTES = 1 << 20


def _content_digest(path: Path) -> str:
    """Hash a file; of a file of more than 8 MiB its size, first and last MiB."""
    try:
        size = path.stat().st_size
        digest = hashlib.sha256(str(size).encode())
        with open(path, "rb") as handle:
            if size <= _WHOLE_BYTES:
                digest.update(handle.read())
            else:
                digest.update(handle.read(_END_BYTES))
                handle.seek(-_END_BYTES, os.SEEK_END)
                digest.update(handle.read())
    except FileNotFoundError:
        return "absent"
    return digest.hexdigest()


def _folder_digest(folder: Path) -> str:
    """Hash the names and sizes of a folder's files."""
    digest = hashlib.sha256()
    if folder.is_dir():
        with os.scandir(folder) as entries:
            found = sorted((e.name, e.stat().st_size) for e in entries if e.name[0] != ".")
        for name, size in found:
            digest.update(f"{name}\0{size}\0".encode())
    return digest.hexdigest()


def _combine(parts: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def listing_fingerprint(config: IndexConfig, root: Path) -> str:
    """Return a cheap hash of what defines the image list; equal hash, equal index.

    Lists, label tables and class lists count by content, annotation files and a folder's
    pictures by name and size; never a time stamp, never a mask. The demo's is constant: its
    pictures follow from the generator alone, and need not be there yet.

    Raises:
        UserError: The data set is not there.
    """
    if config.format == "demo":
        return _combine(["demo"])
    _require_root(root)
    if config.format == "voc":
        voc.require_voc(root)
        parts = [f"{path.name} {_content_digest(path)}" for path in voc.list_files(root)]
        parts += [_content_digest(root / voc.CLS_LABELS), _folder_digest(root / voc.ANNOTATIONS)]
    elif config.format == "coco":
        parts = [f"{path.name} {_content_digest(path)}" for path in coco.annotation_files(root)]
    else:
        require_folder(root)
        parts = [_content_digest(root / name) for name in ("labels.csv", "classes.txt")]
        parts.append(_folder_digest(root / "images"))
    return _combine([config.format, *parts])


def mask_fingerprint(config: IndexConfig, root: Path) -> str:
    """Return a cheap hash of the masks' names and sizes.

    Constant for the generated demo; for COCO of the annotations and the rule that draws them.
    """
    if config.format == "demo":
        return _combine(["demo masks"])
    _require_root(root)
    if config.format == "coco":
        parts = [_content_digest(path) for path in coco.annotation_files(root)]
        return _combine([f"coco {coco.OVERLAP_RULE}", *parts])
    folders = voc.MASK_FOLDERS if config.format == "voc" else ("masks",)
    return _combine([config.format, *(_folder_digest(root / folder) for folder in folders)])
