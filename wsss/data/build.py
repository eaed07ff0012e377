"""Building the index and the mask table: all formats, all checks, one report.

Everything is checked before anything is written, and every offender is listed, so that a data
set is mended in one round.
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np

from wsss.data.class_names import check_order, class_warnings
from wsss.data.fingerprints import combined, once
from wsss.data.formats.registry import FORMATS, DataFormat, IndexSettings
from wsss.data.images import IGNORE, palette_labels, probe_image, read_label
from wsss.data.index import ImageRecord, Index, Records
from wsss.data.listing import Entry, Problem, is_control, is_text, raise_problems, read_lines
from wsss.data.mask_check import Seen, check_tags
from wsss.errors import UserError, listed, with_help
from wsss.files import is_below, is_too_long
from wsss.runtime.names import NameMap
from wsss.runtime.pool import ordered_map
from wsss.runtime.progress import progress

_THREADS = 8  # files are waited for more than computed on
_CHUNK = 64
_T = TypeVar("_T")
_R = TypeVar("_R")


def _format(settings: IndexSettings) -> DataFormat:
    return FORMATS.get(settings.format, where="index.format")


def _require_root(root: Path) -> None:
    if not root.is_dir():
        raise UserError(
            "the data root does not exist",
            where=root,
            fix="say where the data set lies, in config.local.yaml",
        )


def _in_threads(function: Callable[[_T], _R], items: Sequence[_T], what: str) -> Iterator[_R]:
    done = ordered_map(function, items, _THREADS, threads=True, chunk=_CHUNK)
    return progress(done, total=len(items), description=what)


def build_index(settings: IndexSettings, root: Path) -> Index:
    """Read a data set and check all of it.

    Args:
        settings: The format and its settings.
        root: Data root; the paths in the index are relative to it.

    Returns:
        The index, sorted by name.

    Raises:
        UserError: One error that lists every offender with file, line and reason: images that
            are missing, unreadable or without tags in a training set, unknown tags, names
            listed twice, images both in a training and a held-out set, malformed lines.
    """
    _require_root(root)
    listing = _format(settings).list_images(settings, root)
    for note in listing.notes:
        print(note)
    problems = list(listing.problems)

    def check(entry: Entry) -> ImageRecord | Problem:
        if not is_text(entry.path):
            reason = "its name is not UTF-8, which tables and labels cannot hold; rename it"
            return Problem(entry.path, 0, "name in another encoding", reason)
        if not entry.path.isprintable() and any(map(is_control, entry.path)):
            reason = "its name has a line break or another control character; rename it"
            return Problem(repr(entry.path), 0, "name with control characters", reason)
        for name in (entry.name, entry.path):
            if is_too_long(name):
                reason = f"{name[:60]!r}... is longer than the name of a file can be: shorten it"
                return Problem(entry.file, entry.line, "name that is too long", reason)
            if not is_below(name):
                reason = f"{name!r} leads out of the data set's folder"
                return Problem(entry.file, entry.line, "image elsewhere", reason)
        try:
            width, height = probe_image(root / entry.path, settings.max_megapixels)
        except UserError as error:
            if not os.path.lexists(root / entry.path):
                reason = f"there is no {entry.path}"
                return Problem(entry.file, entry.line, "missing image", reason)
            return Problem(entry.path, 0, "unreadable image", with_help(error))
        if entry.size is not None and entry.size != (width, height):
            reason = (
                f"it is {width} x {height}, but {entry.file} says {entry.size[0]} x {entry.size[1]}"
            )
            return Problem(entry.path, 0, "image of another size", reason)
        return ImageRecord(entry.name, entry.sets, entry.tags, width, height, entry.path)

    records = Records()
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
    counts, tagged = pictures_of(listing.classes, records), int(records.tagged.sum())
    for line in class_warnings(counts, tagged=tagged, chosen=listing.chosen):
        print(line, file=sys.stderr)
    return Index(listing.classes, records.by_name())


def pictures_of(classes: Sequence[str], records: Iterable[ImageRecord]) -> dict[str, int]:
    """Return how many pictures have each class, in the classes' order."""
    counts = Counter(tag for record in records for tag in record.tags)
    return {name: counts[name] for name in classes}


def check_class_order(settings: IndexSettings, root: Path, classes: Path, listing: str) -> None:
    """Refuse a data set whose classes would get other numbers than an index that is there has.

    Args:
        settings: The format and its settings.
        root: Data root.
        classes: The class list of that index; there may be none.
        listing: Fingerprint of the data set's lists: what was compared is not compared again.

    Raises:
        UserError: Both orders.
    """
    chosen = _format(settings)
    if chosen.fixed_classes or not classes.is_file():
        return
    before = read_lines(classes)

    def compare() -> None:
        try:
            now = chosen.list_images(settings, root).classes
        except UserError:
            return  # what is wrong with the data is for the index stage to say
        check_order(before, now, where=classes, root=root)

    once(combined("order", listing, settings.model_dump_json(), *before), compare)


def build_masks(
    settings: IndexSettings, root: Path, index: Index, *, only: Index | None = None
) -> NameMap:
    """Find the masks of an index's images and check them all; training never needs this.

    Args:
        settings: The format and its settings.
        root: Data root.
        index: The data set's index.
        only: A part of it, whose masks alone are looked at; None: all of it.

    Returns:
        Image name -> path of its mask relative to the root, for the images that have one.

    Raises:
        UserError: One error that lists every mask that is unreadable, of another size than its
            image, holds values other than 0..classes and 255, or belongs to no image. Or most
            masks contradict the tags; where a few do, they are printed.
    """
    _require_root(root)
    found, problems = _format(settings).find_masks(settings, root, index)
    masks = found if isinstance(found, NameMap) else NameMap(found.items())

    # One object for all pictures with the same labels.
    same: dict[frozenset[int], frozenset[int]] = {}

    def shared(labels: frozenset[int]) -> frozenset[int]:
        return same.setdefault(labels, labels)

    def check(record: ImageRecord) -> Problem | Seen:
        file = masks[record.name]
        try:
            label = read_label(root / file, settings.max_megapixels)
        except UserError as error:
            return Problem(file, 0, "unreadable mask", with_help(error))
        height, width = label.shape
        if (width, height) != (record.width, record.height):
            reason = f"it is {width} x {height}, its image {record.width} x {record.height}"
            if (height, width) == (record.width, record.height):
                reason += "; was it drawn before the picture's EXIF orientation was applied?"
            return Problem(file, 0, "mask of another size", reason)
        values = np.flatnonzero(np.bincount(label.ravel(), minlength=256))
        wrong = [int(value) for value in values if len(index.classes) < value < 255]
        if wrong:
            reason = f"it holds {listed(wrong, 5)}, but labels are 0..{len(index.classes)} and 255"
            if record.tags:
                reason += f"; its picture is tagged {listed(record.tags, 5)}"
            return Problem(file, 0, "mask with unknown labels", reason)
        tags = shared(frozenset(place + 1 for place in index.class_indices(record)))
        shown = frozenset(values.tolist())
        labels = shared(shown - {0, IGNORE})
        palette = palette_labels(root / file)
        colours = None
        if palette is not None and (palette[sorted(labels)] >= 0).all():
            colours = shared(frozenset(palette[sorted(shown)].tolist()) - {-1, 0, IGNORE})
        return Seen(file, tags, labels, IGNORE in shown, colours)

    records = (only or index).records
    records = records.take(records.names.found_in(masks))
    if only is not None:
        masks = NameMap((record.name, masks[record.name]) for record in records)
    seen: list[Seen] = []
    for result in _in_threads(check, records, "checking masks"):
        if isinstance(result, Seen):
            seen.append(result)
        else:
            problems.append(result)
    raise_problems(problems, root=root, what="the masks of this data set")
    # A few corrected masks to learn from do not say how the classes are numbered.
    refuse = only is None or 2 * len(records) > len(only.records)
    check_tags(seen, index.classes, root, refuse=refuse)
    return masks


def _fingerprint_root(settings: IndexSettings, root: Path) -> DataFormat:
    chosen = _format(settings)
    if chosen.generator is None:
        _require_root(root)
    return chosen


def listing_fingerprint(settings: IndexSettings, root: Path) -> str:
    """Return a hash of the image list and the pictures' content; equal hash, equal index.

    Generated data need not be there yet.

    Raises:
        UserError: The data set is not there.
    """
    return _fingerprint_root(settings, root).list_fingerprint(settings, root)


def mask_fingerprint(settings: IndexSettings, root: Path) -> str:
    """Return a hash of what defines the masks.

    Raises:
        UserError: The data set is not there.
    """
    return _fingerprint_root(settings, root).mask_fingerprint(settings, root)
