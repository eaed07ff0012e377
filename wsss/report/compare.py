"""Two runs side by side: settings that differ, scores, and the classes by how much they differ."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from pathlib import Path

from wsss.errors import UserError
from wsss.evaluation.tables import Row
from wsss.files import read_text
from wsss.report import facts

_SETTINGS = "## Settings that differ"

_Stage = tuple[str, str, str]
_Table = dict[_Stage, dict[str, Row]]


def compare(first: Path, second: Path, names: Sequence[str] = ()) -> str:
    """Return two runs side by side, as Markdown.

    Args:
        first: `results/<run>`.
        second: Another; differences are this one's scores minus the first's, in points.
        names: What they are called; empty: as their folders.

    Raises:
        UserError: One of them has no settings yet, or they are the same folder.
    """
    places = [Path(os.path.realpath(folder)) for folder in (first, second)]
    if places[0] == places[1]:
        raise UserError("these are the same run", where=first, expected="two runs")
    for folder in (first, second):
        if not facts.settings_of(folder):
            raise UserError(
                "no run is in this folder",
                where=folder,
                expected="results/<run>, with config/ in it",
                fix=f"make it:  snakemake --cores all {shlex.quote(f'{folder}/done')}",
            )
    names = list(names) or [place.name for place in places]
    tables = [_by_stage(facts.scores(folder)) for folder in (first, second)]
    parts = [
        f"# {names[0]} and {names[1]}",
        _SETTINGS,
        _settings(first, second, names),
        "## Mean IoU, %",
        _means(tables, names),
    ]
    for stage in tables[0]:
        if stage in tables[1]:
            parts += [f"## Classes: {', '.join(stage)}", _classes(tables, stage, names)]
    return "\n\n".join(parts) + "\n"


def is_comparison(path: Path) -> bool:
    """Say whether a file is what `compare` returned once."""
    try:
        first, _, rest = read_text(path).partition("\n")
    except UserError:
        return False
    return first.startswith("# ") and rest.startswith(f"\n{_SETTINGS}\n")


def _by_stage(rows: Sequence[Row]) -> _Table:
    """Return (stage, split, selection) -> class -> row."""
    found: _Table = {}
    for row in rows:
        stage = (row["stage"], row["split"], row["selection"])
        found.setdefault(stage, {})[row["class"]] = row
    return found


def _markdown(header: Sequence[str], rows: Sequence[Sequence[str]], *, left: int) -> str:
    """Lay out a table that reads well as plain text, too."""
    lines = [list(header), *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    widths = [max(3, *map(len, column)) for column in zip(*lines, strict=True)]
    rule = ["-" * width if i < left else "-" * (width - 1) + ":" for i, width in enumerate(widths)]
    text = []
    for line in (lines[0], rule, *lines[1:]):
        cells = [
            cell.ljust(width) if i < left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        text.append(f"| {' | '.join(cells)} |")
    return "\n".join(text)


def _settings(first: Path, second: Path, names: Sequence[str]) -> str:
    one, other = (facts.settings_of(folder) for folder in (first, second))
    has = [{key.partition(".")[0] for key in each} for each in (one, other)]
    rows = [
        [key, *(facts.shown(each[key]) if key in each else "-" for each in (one, other))]
        for key in {**one, **other}
        if key.partition(".")[0] in has[0] & has[1]
        and (key in one, one.get(key)) != (key in other, other.get(key))
    ]
    parts = [_markdown(["setting", *names], rows, left=3) if rows else "None."]
    parts += [
        f"Only {name} has settings of {', '.join(sorted(mine - others))}."
        for name, mine, others in zip(names, has, reversed(has), strict=True)
        if mine - others
    ]
    return "\n\n".join(parts)


def _percent(row: Row | None) -> str:
    return f"{100 * float(row['iou']):.1f}" if row is not None and row["iou"] else "-"


def _points(one: Row | None, other: Row | None) -> str:
    if one is None or other is None or not one["iou"] or not other["iou"]:
        return "-"
    return f"{100 * (float(other['iou']) - float(one['iou'])):+.1f}"


def _cells(one: Row | None, other: Row | None) -> list[str]:
    return [_percent(one), _percent(other), _points(one, other)]


def _means(tables: Sequence[_Table], names: Sequence[str]) -> str:
    rows = [
        [*stage, *_cells(*(table.get(stage, {}).get("mean") for table in tables))]
        for stage in {**tables[0], **tables[1]}
    ]
    if not rows:
        return "Neither has been scored yet."
    return _markdown(["stage", "set", "background score", *names, "difference"], rows, left=3)


def _classes(tables: Sequence[_Table], stage: _Stage, names: Sequence[str]) -> str:
    one, other = (table[stage] for table in tables)
    rows = [
        [name, *_cells(one.get(name), other.get(name))]
        for name in {**one, **other}
        if name != "mean"
    ]
    # The largest gain first; what cannot be compared last.
    rows.sort(key=lambda row: -float(row[-1]) if row[-1] != "-" else float("inf"))
    return _markdown(["class", *names, "difference"], rows, left=1)
