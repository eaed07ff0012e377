"""Pictures and tags in a table: CSV (tags in cells, or a column a class), JSON or JSON lines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from wsss.data.class_names import (
    ALPHABETICAL,
    FROM_FILE,
    arranged,
    in_order,
    joined_names,
    order_note,
    read_classes,
)
from wsss.data.fingerprints import combined, content_digest
from wsss.data.formats.folder import find_folder_masks, folder_mask_fingerprint
from wsss.data.formats.pictures import (
    SET_NAMES,
    Finder,
    files_below,
    image_name,
    note_left_out,
    pictures_digest,
    split_off_val,
)
from wsss.data.formats.registry import FORMATS, DataFormat, IndexSettings
from wsss.data.formats.table_rows import Row, read_rows
from wsss.data.listing import (
    Entry,
    Listing,
    Problem,
    class_problems,
    nearest,
)
from wsss.data.tags import Cell, clean_name, read_tags
from wsss.errors import UserError, listed, with_help
from wsss.runtime.settings import BelowOne

SUFFIXES = (".csv", ".tsv", ".json", ".jsonl", ".ndjson")


class TableSettings(IndexSettings):
    """Which file lists pictures and tags."""

    format: Literal["table"] = "table"
    """A table of pictures and tags."""

    file: str = "labels.csv"
    """Table only: its file, relative to the data's folder; pictures lie anywhere below that
    folder."""
    val_share: BelowOne = 0.0
    """Share of the training pictures that become `val` where the data name no such set."""


def list_table(settings: TableSettings, root: Path) -> Listing:
    """List the pictures of a table.

    Classes are those of classes.txt where there is one, else the columns of a one-hot table in
    their order, else all tags, sorted as a person does.
    """
    table = read_rows(root / settings.file)
    cells = [Cell(row.line, row.tags) for row in table.rows]
    columns = tuple(map(clean_name, table.classes))
    tags = read_tags(cells, columns or read_classes(root, []), file=settings.file)
    problems = list(tags.problems)
    if columns:
        problems += joined_names(columns, file=settings.file)
        classes, order = arranged(root, columns, "that of the columns", problems)
    else:
        found = in_order(name for names in tags.of for name in names)
        classes, order = arranged(root, found, ALPHABETICAL, problems)
    listing = Listing(
        classes, problems=problems, notes=[*table.notes, *tags.notes, order_note(order)]
    )
    listing.chosen = bool(columns) or order == FROM_FILE
    listing.problems += class_problems(classes, file=settings.file)
    finder = Finder(root)
    first: dict[str, int] = {}
    without: list[str] = []
    doubtful = {problem.line for problem in tags.problems}
    for row, names in zip(table.rows, tags.of, strict=True):
        _add(listing, finder, settings.file, row, names, first)
        if not names and row.line not in doubtful:
            without.append(row.image)
    note_left_out(listing, without, "without tags, not trained on")
    listing.notes += finder.moved()
    note_left_out(listing, finder.unlisted(), f"pictures that {settings.file} does not list")
    split_off_val(listing, settings.val_share)
    return listing


def _add(
    listing: Listing,
    finder: Finder,
    file: str,
    row: Row,
    names: frozenset[str],
    first: dict[str, int],
) -> None:
    path = finder.find(row.image, file, row.line, listing.problems)
    if path is None:
        return
    name = image_name(path)
    if first.setdefault(name, row.line) != row.line:
        reason = f"{row.image} is listed twice, first in line {first[name]}"
        listing.problems.append(Problem(file, row.line, "image listed twice", reason))
        return
    set_name = SET_NAMES.get(row.set_name.lower(), "") if row.set_name else "train"
    if not set_name:
        reason = f"{row.set_name!r} is none of {', '.join(SET_NAMES)}"
        listing.problems.append(Problem(file, row.line, "unknown set", reason))
        return
    for tag in sorted(names.difference(listing.classes)):
        reason = f"{tag!r} is not in the class list{nearest(tag, listing.classes)}"
        listing.problems.append(Problem(file, row.line, "unknown tag", reason))
    tags = tuple(tag for tag in listing.classes if tag in names)
    listing.entries.append(
        Entry(name, path, (set_name,), tags, file, row.line, file, may_be_untagged=True)
    )


def recognise(root: Path) -> Mapping[str, Any] | None:
    """Return settings if just one table near the top lists pictures that are there.

    Raises:
        UserError: There are tables, and none of them can be read or lists these pictures; or
            several do.
    """
    candidates = [
        file
        for file in files_below(root)
        if Path(file).suffix.lower() in SUFFIXES and file.count("/") < 2
    ]
    if not candidates:
        return None
    found, near = [], []
    finder = Finder(root)
    for file in candidates:
        try:
            rows = read_rows(root / file).rows
        except UserError as error:
            near.append(error)
            continue
        problems: list[Problem] = []
        missing = [r for r in rows if finder.find(r.image, file, r.line, problems) is None]
        if len(missing) * 2 < len(rows):
            found.append(file)
        else:
            near.append(_of_other_pictures(root / file, len(rows), len(missing), problems))
    if len(found) == 1:
        return {"format": "table", "file": found[0]}
    if found:
        raise UserError(
            f"there are several tables of these pictures: {listed(found, 4)}",
            where=root,
            fix="take the others away, or name one as index.file of a run",
        )
    if len(near) == 1:
        raise near[0]
    told = [f"{Path(each.where or '').relative_to(root)}: {with_help(each)}" for each in near]
    raise UserError(listed(told, 6, separator="; "), where=root)


def _of_other_pictures(
    path: Path, total: int, missing: int, problems: Sequence[Problem]
) -> UserError:
    reason = f": line {problems[0].line}, {problems[0].reason}" if problems else ""
    return UserError(
        f"of the {total} pictures that it lists {missing} are not here{reason}", where=path
    )


def _list_fingerprint(settings: TableSettings, root: Path) -> str:
    return combined("table", content_digest(root / settings.file), pictures_digest(root))


FORMATS.register(
    DataFormat(
        name="table",
        description="a table of pictures and tags",
        settings=TableSettings,
        list_images=list_table,
        find_masks=find_folder_masks,
        list_fingerprint=_list_fingerprint,
        mask_fingerprint=folder_mask_fingerprint,
        recognise=recognise,
    )
)
