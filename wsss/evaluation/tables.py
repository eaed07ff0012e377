"""The tidy score tables: one row a class, their collection, and the table for people."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from wsss.errors import UserError
from wsss.evaluation.confusion import Scores
from wsss.files import read_text, write_text

COLUMNS = (
    "run",
    "stage",
    "labels",
    "split",
    "selection",
    "threshold",
    "class",
    "iou",
    "precision",
    "recall",
)
SCORES = ("threshold", "iou", "precision", "recall")
STAGES = (
    "cam",
    "cam_crf",
    "pseudo_label",
    "pseudo_label_crf",
    "self_label",
    "segmentation",
    "segmentation_crf",
)
CURVE_COLUMNS = ("threshold", "miou", "precision", "recall")
Row = Mapping[str, str]


@dataclass(frozen=True)
class CurvePoint:
    """Means over the classes at one background score; NaN where undefined."""

    threshold: float
    iou: float
    precision: float
    recall: float


def number(value: float) -> str:
    """Return a score as text, empty where undefined."""
    return "" if math.isnan(value) else f"{value:.6f}"


def rows_of_scores(
    scores: Scores,
    classes: Sequence[str],
    *,
    run: str,
    stage: str,
    labels: str,
    split: str,
    selection: str,
    threshold: float | None,
) -> list[Row]:
    """Return the rows of `background`, every class and `mean`.

    Args:
        scores: Scores of background and the classes.
        classes: Names, without background.
        run: Name of the run.
        stage: Stage that is scored.
        labels: `pseudo`, `ground_truth`, `mixed`, or the run that predicted them.
        split: Image set that is scored.
        selection: `configured` or `best`.
        threshold: Background score; None where the stage has none.
    """
    common = {
        "run": run,
        "stage": stage,
        "labels": labels,
        "split": split,
        "selection": selection,
        "threshold": "" if threshold is None else f"{threshold:g}",
    }
    values = zip(("background", *classes), scores.iou, scores.precision, scores.recall, strict=True)
    named = [*values, ("mean", scores.mean_iou, scores.mean_precision, scores.mean_recall)]
    return [
        common
        | {
            "class": name,
            "iou": number(iou),
            "precision": number(precision),
            "recall": number(recall),
        }
        for name, iou, precision, recall in named
    ]


NOTE = "# "
"""Begins the lines above a table's columns that say what it leaves out."""


def write_rows(
    path: Path,
    rows: Sequence[Row],
    columns: Sequence[str] = COLUMNS,
    *,
    notes: Sequence[str] = (),
) -> None:
    """Write rows as CSV, atomically; `notes` go above the columns, a line each."""
    text = io.StringIO()
    text.writelines(f"{NOTE}{note}\n" for note in notes)
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())


def write_curve(path: Path, points: Sequence[CurvePoint]) -> None:
    """Write the sweep as CSV: threshold and the means over the classes."""
    values = ((f"{p.threshold:g}", *map(number, (p.iou, p.precision, p.recall))) for p in points)
    write_rows(path, [dict(zip(CURVE_COLUMNS, row, strict=True)) for row in values], CURVE_COLUMNS)


def read_notes(path: Path) -> list[str]:
    """Return what a CSV of scores says above its columns: what was left out.

    Raises:
        UserError: The file is missing.
    """
    return _read(path)[0]


def _read(path: Path) -> tuple[list[str], list[str]]:
    """Return notes and lines of a CSV of scores."""
    if not path.exists():
        raise UserError(
            "this table of scores does not exist", where=path, fix="run the evaluation first"
        )
    lines = list(io.StringIO(read_text(path), newline=""))
    count = next((i for i, line in enumerate(lines) if not line.startswith(NOTE)), len(lines))
    return [line.removeprefix(NOTE).strip() for line in lines[:count]], lines[count:]


def read_rows(path: Path) -> list[Row]:
    """Read a CSV of scores.

    Raises:
        UserError: The file is missing, has other columns, or a score that is no number.
    """
    return read_table(path, _read(path)[1], COLUMNS, SCORES)


def read_table(
    path: Path, lines: Sequence[str], columns: Sequence[str], scores: Collection[str]
) -> list[Row]:
    """Read the lines of a CSV.

    Args:
        path: Where they are from.
        lines: Its lines, ends kept.
        columns: The columns that it must have.
        scores: Those whose cells are numbers, or empty.

    Raises:
        UserError: It has other columns, or a cell that does not fit its column.
    """
    again = "delete it and start again: the stage that writes it runs again"
    reader = csv.DictReader(lines, strict=True)
    try:
        found = tuple(reader.fieldnames or ())
        rows = list(reader)
    except csv.Error as error:
        raise UserError(f"this is not a table: {error}", where=path, fix=again) from None
    if found != tuple(columns):
        raise UserError(
            f"its columns are {', '.join(found)[:200] or 'missing'}",
            where=path,
            expected=", ".join(columns),
            fix=again,
        )
    for number, row in enumerate(rows, 1):
        # None stands for cells that a line lacks, and as the name of those that it has too many of.
        bad = [key for key in scores if not _is_score(row.get(key))]
        if None in row or None in row.values() or bad:
            raise UserError(
                f"row {number} does not fit the columns" + (f": {bad[0]}" if bad else ""),
                where=path,
                expected=", ".join(columns),
                fix=again,
            )
    return list(rows)


def _is_score(cell: str | None) -> bool:
    if not cell:
        return cell is not None
    try:
        return math.isfinite(float(cell))
    except ValueError:
        return False


def collect(*, scores: Sequence[Path], output: Path) -> None:
    """Join the score tables of a run's stages, in the order of the stages, and print the means.

    Args:
        scores: Score tables of a run's stages.
        output: CSV to write.

    Raises:
        UserError: A table is missing, has other columns, or two hold the same row.
    """
    rows = [row for path in scores for row in read_rows(path)]
    keys = [tuple(row[key] for key in (*COLUMNS[:5], "class")) for row in rows]
    if len(set(keys)) != len(keys):
        twice = next(key for key in keys if keys.count(key) > 1)
        raise UserError(
            f"these tables score the same thing twice: {', '.join(twice)}",
            where=", ".join(str(path) for path in scores),
        )
    order = {stage: position for position, stage in enumerate(STAGES)}
    # A stable sort: rows of one stage keep their order.
    rows.sort(key=lambda row: order.get(row["stage"], len(order)))
    write_rows(output, rows, notes=[note for path in scores for note in read_notes(path)])
    print(format_table(output))


def percent(score: str, threshold: str = "") -> str:
    """Return a score of a table in percent, after `@` the background score; `-` for none."""
    if not score:
        return "-"
    return f"{100 * float(score):.1f}" + (f" @ {threshold}" if threshold else "")


def mean_cells(rows: Sequence[Row]) -> list[list[str]]:
    """Return the mean IoU by stage, in percent, a line a stage.

    Returns:
        Run, stage, split, labels; mean IoU at the configured background score, at the best, and
        with CRF. A background score stands after `@`.
    """
    stages: dict[tuple[str, str, str, str], dict[str, Row]] = {}
    for row in rows:
        if row["class"] != "mean":
            continue
        is_crf = row["stage"].endswith("_crf")
        key = (row["run"], row["stage"].removesuffix("_crf"), row["split"], row["labels"])
        column = "crf" if is_crf else row["selection"]
        if not is_crf or row["selection"] == "configured":
            stages.setdefault(key, {})[column] = row
    return [
        [
            *key,
            *(
                percent(mean.get("iou", ""), mean.get("threshold", ""))
                for mean in (columns.get(name, {}) for name in ("configured", "best", "crf"))
            ),
        ]
        for key, columns in stages.items()
    ]


def format_table(path: Path) -> str:
    """Return the run's mean IoU by stage, in percent, as a text table.

    A background score stands after `@`; `best` was chosen with the ground truth in sight. What
    was left out for want of masks is said above it.
    """
    header = ["run", "stage", "split", "labels", "mIoU configured", "mIoU best", "with CRF"]
    table = text_table([header, *mean_cells(read_rows(path))], left=4)
    return "\n".join([*read_notes(path), table])


def text_table(lines: Sequence[Sequence[str]], *, left: int) -> str:
    """Lay out cells in columns, the first line as the header.

    Args:
        lines: The header and the rows, of equally many cells.
        left: How many columns are words, at the left of their column; the others are numbers.
    """
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    header, *rows = lines
    ruled = (header, ["-" * width for width in widths], *rows)
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i < left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in ruled
    )
