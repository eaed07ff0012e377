"""Masks of other tools into `masks/` of a data set: matched, checked as a whole, then written."""

from __future__ import annotations

import hashlib
import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from wsss.data.formats.pictures import MASKS, spellings, spelt_otherwise
from wsss.data.images import IGNORE, read_label, write_label, written_by
from wsss.data.imports.drawn import Drawing, DrawnMask, Label
from wsss.data.index import ImageRecord, Index
from wsss.data.listing import Problem, raise_problems
from wsss.data.mask_check import Seen, check_tags
from wsss.errors import UserError, listed
from wsss.files import atomic_file

PROGRAM = "wsss import-masks"
DIGEST = "wsss-labels"
"""Text in a PNG that was imported: the hash of its labels, by which a change is noticed."""


@dataclass
class Report:
    """What became of the masks, by the names of their pictures.

    Attributes:
        written: Taken.
        kept: There already, pixel by pixel.
        unchanged: Left out, as they are what was exported.
        empty: Left out, as nothing is drawn in them.
        unknown: Left out, as the run has no such picture.
        restored: Of those taken: pixels that were not sure stay so in them.
    """

    written: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    unchanged: list[str] = field(default_factory=list)
    empty: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    restored: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Choices:
    """What a person chooses.

    Attributes:
        drafts: Folders of label PNGs that may have been exported, the likeliest first.
        take_unchanged: Take masks that are still what was exported, too.
        unsure_is_background: What a tool cannot keep as not sure becomes background.
        overwrite: Write over masks that are there.
    """

    drafts: Sequence[Path] = ()
    take_unchanged: bool = False
    unsure_is_background: bool = False
    overwrite: bool = False


class Pictures:
    """Finds the picture of a mask: by our name, by its path, by the end of a path."""

    def __init__(self, records: Sequence[ImageRecord]) -> None:
        self._found: dict[str, list[ImageRecord]] = defaultdict(list)
        for record in records:
            path = PurePosixPath(record.path)
            for key in {record.name, *_ends(path), *_ends(path.with_suffix(""))}:
                self._found[key].append(record)

    def find(self, text: str) -> list[ImageRecord]:
        """Return the picture, several that it could be, or none."""
        for name in spellings(text):
            path = PurePosixPath(name)
            plain = path.with_suffix("") if path.suffix else path
            # The longest end of the path that something is called.
            for key in (name, *_ends(path), *_ends(plain)):
                if self._found.get(key):
                    return self._found[key]
        return []


def _ends(path: PurePosixPath) -> list[str]:
    parts = [part for part in path.parts if part != "/"]
    return ["/".join(parts[start:]) for start in range(len(parts))]


def import_masks(drawing: Drawing, index: Index, root: Path, choices: Choices) -> Report:
    """Write a tool's masks as `masks/NAME.png` below the data set's folder.

    Everything is checked before anything is written.

    Args:
        drawing: The masks.
        index: The run's pictures and classes.
        root: The data set's folder.
        choices: What a person chooses.

    Raises:
        UserError: A mask has unknown classes, another size than its picture, or is unreadable; two
            are of one picture; or a mask is there that was not imported, or was changed since.
            Or masks whose file names no classes contradict the tags.
    """
    report, problems = Report(), list(drawing.problems)
    matched = _matched(drawing, index, report, problems)
    seen: list[Seen] = []
    wanted: list[tuple[Path, ImageRecord, DrawnMask]] = []
    # A mask is the one that is there, however its suffix is spelt.
    otherwise = spelt_otherwise(root / MASKS)
    for record, mask in matched:
        try:
            label = _label(mask, record, drawing, choices)
            if _is_taken(label, mask, record, choices, report):
                target = root / MASKS / otherwise.get(record.name, f"{record.name}.png")
                if _same(target, label):
                    report.kept.append(record.name)
                elif choices.overwrite or _replaceable(target):
                    wanted.append((target, record, mask))
                    seen.append(_seen(label, record, index))
                else:
                    reason = "it was not imported, or was changed since: --overwrite replaces it"
                    file = f"{MASKS}/{target.name}"
                    problems.append(Problem(file, 0, "mask that is there already", reason))
        except UserError as error:
            problems.append(Problem(mask.place, 0, "bad mask", error.found))
    raise_problems(problems, root=root, what="these masks")
    if drawing.named:
        _tell_untagged(seen, index)
    else:
        check_tags(seen, index.classes, root)
    for target, record, mask in wanted:
        label = _label(mask, record, drawing, choices)
        _write(target, label)
        report.written.append(record.name)
        if (label == IGNORE).any() and not drawing.knows_unsure:
            report.restored.append(record.name)
    return report


def _matched(
    drawing: Drawing, index: Index, report: Report, problems: list[Problem]
) -> list[tuple[ImageRecord, DrawnMask]]:
    pictures = Pictures(index.records)
    first: dict[str, DrawnMask] = {}
    matched = []
    for mask in drawing.masks:
        found = pictures.find(mask.picture)
        if not found:
            report.unknown.append(mask.picture)
        elif len(found) > 1:
            names = listed((record.path for record in found), 4)
            problems.append(Problem(mask.place, 0, "ambiguous picture", f"it could be {names}"))
        elif first.setdefault(found[0].name, mask) is not mask:
            reason = f"{found[0].name} has another mask in {first[found[0].name].place}"
            problems.append(Problem(mask.place, 0, "picture with two masks", reason))
        else:
            matched.append((found[0], mask))
    return matched


def _draft(record: ImageRecord, choices: Choices) -> list[Label]:
    paths = (folder / f"{record.name}.png" for folder in choices.drafts)
    return [read_label(path) for path in paths if path.is_file()]


def _check_size(size: tuple[int, ...], record: ImageRecord) -> None:
    if size != (record.height, record.width):
        raise UserError(
            f"it is {size[1]} x {size[0]} px, {record.path} is {record.width} x {record.height}"
        )


def _label(mask: DrawnMask, record: ImageRecord, drawing: Drawing, choices: Choices) -> Label:
    """Return the labels of a mask, with what the tool could not keep put back."""
    if mask.size is not None:
        _check_size(mask.size, record)  # before anything of that size is made
    label = mask.read()
    _check_size(label.shape, record)
    drafts = _draft(record, choices)
    if drafts and not (drawing.knows_unsure or choices.unsure_is_background):
        label = np.where((drafts[0] == IGNORE) & (label == 0), np.uint8(IGNORE), label)
    return label


def _is_taken(
    label: Label, mask: DrawnMask, record: ImageRecord, choices: Choices, report: Report
) -> bool:
    drawn = label[(label != 0) & (label != IGNORE)]
    if not drawn.size and record.tags:
        report.empty.append(record.name)
        return False
    if mask.submitted or choices.take_unchanged:
        return True
    for draft in _draft(record, choices):
        if np.array_equal(_settled(draft), _settled(label)):
            report.unchanged.append(record.name)
            return False
    return True


def _settled(label: Label) -> Label:
    """Return labels with 255 as 0: what is left of them in a tool that does not know 255."""
    return np.where(label == IGNORE, np.uint8(0), label)


def _seen(label: Label, record: ImageRecord, index: Index) -> Seen:
    tags = frozenset(place + 1 for place in index.class_indices(record))
    shown = frozenset(np.unique(label).tolist())
    return Seen(f"{MASKS}/{record.name}.png", tags, shown - {0, IGNORE}, IGNORE in shown)


def _tell_untagged(seen: Sequence[Seen], index: Index) -> None:
    """Say which masks have classes that their pictures are not tagged with."""
    for each in seen:
        extra = sorted(each.labels - each.tags)
        if each.tags and extra:
            names = listed((index.classes[label - 1] for label in extra), 5)
            print(f"warning: {each.file} shows {names}, not among the tags", file=sys.stderr)


def _digest(label: Label) -> str:
    return hashlib.sha256(repr(label.shape).encode() + label.tobytes()).hexdigest()


def _same(target: Path, label: Label) -> bool:
    return target.is_file() and np.array_equal(read_label(target), label)


def _replaceable(target: Path) -> bool:
    """Say whether there is no mask yet, or one that was imported and is as it was then."""
    if not target.exists():
        return True
    try:
        with Image.open(target, formats=("PNG",)) as image:
            image.load()
            noted = image.info.get(DIGEST)
        return bool(noted == _digest(read_label(target)))
    except (OSError, SyntaxError, ValueError, UserError):
        return False


def _write(target: Path, label: Label) -> None:
    info = written_by(PROGRAM)
    info.add_text(DIGEST, _digest(label))
    with atomic_file(target) as temporary:
        write_label(temporary, label, info)
