"""Rows of a table of pictures and tags, whichever of the usual forms it has."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wsss.data.json_files import parse_json, read_data_json
from wsss.data.listing import lines_of, read_lines
from wsss.errors import UserError, listed

IMAGE_KEYS = ("image", "file_name", "filename", "file", "path", "image_path", "image_name", "name")
TAG_KEYS = ("tags", "labels", "label", "tag", "classes", "class", "categories", "category")
SET_KEYS = ("set", "split", "subset")
_YES = {"1", "1.0", "true", "yes", "x"}
_NO = {"", "0", "0.0", "false", "no", "nan", "-1"}
_SEPARATOR = re.compile(r"sep=([,;\t|])", re.I)
_REGIONS = "region_attributes"
_NUMBERED = re.compile(r"(?:tag|label|class|category)[ _-]?\d+")


@dataclass(frozen=True)
class Row:
    """A picture as a table names it.

    Attributes:
        image: Its text.
        tags: Text with all of its tags, or one name each, as `wsss.data.tags` takes them.
        set_name: Its set; empty: none is named.
        line: Its line.
    """

    image: str
    tags: str | tuple[str, ...]
    set_name: str
    line: int


@dataclass(frozen=True)
class Rows:
    """The rows, the classes in order where the table's columns are classes, and remarks."""

    rows: Sequence[Row]
    classes: tuple[str, ...] = ()
    notes: Sequence[str] = field(default_factory=tuple)


def read_rows(path: Path) -> Rows:
    """Read a table.

    CSV: one column is the picture (`image`, `file_name`, ... or the first). Tags are in a column
    `tags` or `labels` and so on, separated by one of `;`, `,` and `|`; or in columns `tag1`,
    `tag2`, ...; or each other column is a class, with 1 or 0 in it. JSON: a list of objects with
    `file_name` and `labels`, or one object with a list of tags a picture; JSON lines: an object a
    line.

    Raises:
        UserError: The file is none of these.
    """
    if path.suffix.lower() in (".csv", ".tsv"):
        return _csv_rows(path)
    return _json_rows(path)


def _require_once(names: Sequence[str], place: str, path: Path) -> None:
    """Check that no column or key that is looked for stands twice, in capitals or not.

    Raises:
        UserError: One does: which one is meant is open.
    """
    twice = [key for key in (*IMAGE_KEYS, *TAG_KEYS, *SET_KEYS) if names.count(key) > 1]
    if twice:
        raise UserError(
            f"{place} has {twice[0]!r} twice", where=path, fix="take one away, or rename it"
        )


_TagsOf = Callable[[list[str]], str | tuple[str, ...]]


def _first(keys: Sequence[str], known: Mapping[str, Any]) -> str | None:
    return next((key for key in keys if key in known), None)


def _csv_rows(path: Path) -> Rows:
    text_lines = read_lines(path)
    # Excel's own remark for itself in the first line.
    said = _SEPARATOR.fullmatch(text_lines[0]) if text_lines else None
    if said:
        text_lines[0] = ""
    text = "\n".join(text_lines) + "\n"
    header_line = next(filter(None, text_lines), "")
    delimiter = said[1] if said else max((",", ";", "\t"), key=header_line.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True)
    try:
        header = [cell.strip() for cell in next(filter(None, reader), [])]
        lines = [(reader.line_num, [c.strip() for c in cells]) for cells in reader if any(cells)]
    except csv.Error as error:
        raise UserError(
            f"this is not a CSV file: {error}", where=f"{path}, line {reader.line_num}"
        ) from None
    wrong = [line for line, cells in lines if len(cells) != len(header)]
    if len(header) < 2 or not lines or wrong:
        raise UserError(
            f"lines {listed(wrong, 5)} have another number of cells than the first"
            if wrong
            else "this table has no rows, or only one column",
            where=path,
            expected="a column with pictures, and tags in others",
        )
    columns = {name.lower(): position for position, name in enumerate(header)}
    if _REGIONS in columns:  # beside it VIA counts the regions, and a 0 or 1 there is no tag
        raise UserError(
            f"the column {_REGIONS!r}: this is VIA's list of regions, not a table of tags",
            where=path,
            fix="in VIA, export the annotations as COCO (JSON)",
        )
    _require_once([name.lower() for name in header], "the first line", path)
    image = columns[_first(IMAGE_KEYS, columns) or header[0].lower()]
    set_key = _first(SET_KEYS, columns)
    used = {image, columns[set_key] if set_key else image}
    # Spreadsheets leave columns of nothing at the end of all lines.
    others = [
        i
        for i in range(len(header))
        if i not in used and (header[i] or any(cells[i] for _, cells in lines))
    ]

    def rows(tags_of: _TagsOf) -> list[Row]:
        return [
            Row(cells[image], tags_of(cells), cells[columns[set_key]] if set_key else "", line)
            for line, cells in lines
        ]

    tag_key = _first(TAG_KEYS, columns)
    if tag_key is not None:
        place = columns[tag_key]
        left = [header[i] for i in others if i != place]
        return Rows(rows(lambda cells: cells[place]), notes=_columns_left_out(left))
    numbered = [i for i in others if _NUMBERED.fullmatch(header[i].lower())]
    if numbered:
        left = [header[i] for i in others if i not in numbered]
        tags = rows(lambda cells: tuple(cells[i] for i in numbered if cells[i]))
        return Rows(tags, notes=_columns_left_out(left))
    return _one_hot(path, header, others, lines, rows)


def _one_hot(
    path: Path,
    header: list[str],
    others: list[int],
    lines: list[tuple[int, list[str]]],
    rows: Callable[[_TagsOf], list[Row]],
) -> Rows:
    hot = [i for i in others if all(cells[i].lower() in _YES | _NO for _, cells in lines)]
    if not hot:
        raise UserError(
            f"none of the columns {', '.join(header)} holds tags",
            where=path,
            expected=f"a column called {', '.join(TAG_KEYS[:3])} ...; or columns of 0 and 1",
        )
    left = [header[i] for i in others if i not in hot]
    tags = rows(lambda cells: tuple(header[i] for i in hot if cells[i].lower() in _YES))
    return Rows(tags, tuple(header[i] for i in hot), _columns_left_out(left))


def _columns_left_out(names: list[str]) -> list[str]:
    named = [name or "one without a name" for name in names]
    return [f"left out, columns of the table: {listed(named, 8)}"] if named else []


def _json_rows(path: Path) -> Rows:
    if path.suffix.lower() == ".json":
        objects = _json_objects(read_data_json(path), path)
    else:
        objects = _objects_by_line(path)
    if not objects:
        raise UserError("this table lists no picture", where=path)
    rows = []
    left: dict[str, None] = {}
    for line, values in objects:
        known = {k.lower(): v for k, v in values.items()} if isinstance(values, dict) else {}
        if isinstance(values, dict) and len(known) != len(values):
            _require_once([key.lower() for key in values], f"entry {line}", path)
        image, tags = _first(IMAGE_KEYS, known), _first(TAG_KEYS, known)
        if image is None or tags is None:
            raise UserError(
                f"entry {line} has no picture or no tags",
                where=path,
                expected='objects such as {"file_name": "a.jpg", "labels": ["dog", "sofa"]}',
            )
        picture = known[image]
        if isinstance(picture, int) and not isinstance(picture, bool):
            picture = str(picture)  # VOC's names are numbers to some programs
        if not isinstance(picture, str):
            raise UserError(
                f"the {image} of entry {line} is {json.dumps(known[image])[:60]}",
                where=path,
                expected="the name of a file",
            )
        set_key = _first(SET_KEYS, known)
        left |= dict.fromkeys(known.keys() - {image, tags, set_key})
        names = _json_tags(known[tags])
        if names is None:
            raise UserError(
                f"the {tags} of entry {line} are {json.dumps(known[tags])[:60]}",
                where=path,
                expected='a list of names, or a text with one separator: ["dog", "sofa"]',
            )
        set_name = str(known[set_key]) if set_key else ""
        rows.append(Row(picture, names, set_name, line))
    notes = [f"left out, keys of the entries: {listed(sorted(left), 8)}"] if left else []
    return Rows(rows, notes=notes)


def _json_tags(found: Any) -> str | tuple[str, ...] | None:
    """Return what a JSON value says of tags; None: it is something else."""
    if isinstance(found, str):
        return found
    values = found if isinstance(found, list) else [] if found is None else [found]
    if any(isinstance(each, bool) or not isinstance(each, (str, int)) for each in values):
        return None
    return tuple(map(str, values))


def _objects_by_line(path: Path) -> list[tuple[int, Any]]:
    # Lines end at line ends alone: a text may hold what Unicode calls a separator of lines.
    lines = enumerate(lines_of(path, any_separator=False), start=1)
    return [(n, parse_json(words, f"{path}, line {n}")) for n, words in lines if words.strip()]


def _json_objects(values: Any, path: Path) -> list[tuple[int, Any]]:
    if isinstance(values, list):
        return list(enumerate(values, start=1))
    if isinstance(values, dict) and all(isinstance(tags, (list, str)) for tags in values.values()):
        pairs = ({"image": image, "tags": tags} for image, tags in values.items())
        return list(enumerate(pairs, start=1))
    raise UserError(
        "this JSON is neither a list of objects nor an object with a list of tags a picture",
        where=path,
    )
