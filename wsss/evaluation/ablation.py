"""Ablation tables: the CAM scores of a run's variants in one CSV, and a text table for people."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path

from wsss.errors import UserError
from wsss.evaluation.tables import read_rows, text_table
from wsss.files import write_text

# Row -> mIoU in percent of the CAMs on VOC 2012's training images, by the initial q of stochastic
# remnant feeding (ACR, CVPR 2023, supplementary, Table A2).
PUBLISHED: Mapping[str, float] = {
    "q-0.60": 59.7,
    "q-0.65": 59.6,
    "q-0.70": 59.6,
    "q-0.75": 60.1,
    "q-0.80": 60.3,
    "q-0.85": 60.3,
    "q-0.90": 60.0,
}
SELECTIONS = ("configured", "best")


@dataclass(frozen=True)
class AblationRow:
    """One score of one variant; texts as they stand in the CSV, scores in 0..1.

    Attributes:
        variant: Name of the row, such as `no-srf` or `q-0.60`.
        run: The run whose score it is.
        split: Image set that is scored.
        selection: `configured` or `best`: which background score.
        threshold: That background score.
        miou: Mean IoU over background and classes.
        precision: Mean over the same.
        recall: Mean over the same.
        published_miou: What the paper reports for this row on VOC 2012; empty where it does not.
    """

    variant: str
    run: str
    split: str
    selection: str
    threshold: str
    miou: str
    precision: str
    recall: str
    published_miou: str


COLUMNS = tuple(entry.name for entry in fields(AblationRow))


def ablation_rows(scores: Mapping[str, Path]) -> list[AblationRow]:
    """Read the means out of each variant's CAM scores.

    Args:
        scores: Variant -> `evaluation/cam.csv` of the run that it is.

    Raises:
        UserError: A table is missing, has other columns, or lacks the means; or the variants
            were scored on different image sets.
    """
    rows = []
    for variant, path in scores.items():
        means = {
            row["selection"]: row
            for row in read_rows(path)
            if row["stage"] == "cam" and row["class"] == "mean"
        }
        if set(means) != set(SELECTIONS):
            raise UserError(
                f"the means of {', '.join(sorted(means)) or 'no selection'} are there",
                where=path,
                expected=f"the CAMs' means of {' and '.join(SELECTIONS)}",
            )
        published = PUBLISHED.get(variant)
        for selection in SELECTIONS:
            mean = means[selection]
            rows.append(
                AblationRow(
                    variant=variant,
                    run=mean["run"],
                    split=mean["split"],
                    selection=selection,
                    threshold=mean["threshold"],
                    miou=mean["iou"],
                    precision=mean["precision"],
                    recall=mean["recall"],
                    published_miou="" if published is None else f"{published / 100:.3f}",
                )
            )
    splits = sorted({row.split for row in rows})
    if len(splits) > 1:
        raise UserError(
            f"the variants were scored on different image sets: {', '.join(splits)}",
            where=", ".join(map(str, scores.values())),
            fix="give them the same evaluation.seed_split",
        )
    return rows


def collect_ablation(scores: Mapping[str, Path], output: Path) -> list[AblationRow]:
    """Write the scores of all variants as one CSV, atomically, and return its rows.

    Args:
        scores: Variant -> `evaluation/cam.csv` of the run that it is.
        output: CSV to write.
    """
    rows = ablation_rows(scores)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(astuple(row) for row in rows)
    write_text(output, text.getvalue())
    return rows


def format_ablation(rows: Sequence[AblationRow]) -> str:
    """Return the mIoU of each variant in percent as a text table, published values beside it.

    A background score stands after `@`; `best` was chosen with the ground truth in sight.
    """
    by_variant: dict[str, dict[str, AblationRow]] = {}
    for row in rows:
        by_variant.setdefault(row.variant, {})[row.selection] = row
    has_published = any(row.published_miou for row in rows)
    table = [["variant", "split", "mIoU configured", "mIoU best"]]
    if has_published:
        table[0].append("published (VOC train)")
    for variant, means in by_variant.items():
        first = next(iter(means.values()))
        line = [variant, first.split, *(_percent(means[selection]) for selection in SELECTIONS)]
        if has_published:
            published = first.published_miou
            line.append(f"{100 * float(published):.1f}" if published else "-")
        table.append(line)
    return text_table(table, left=2)


def _percent(row: AblationRow) -> str:
    return f"{100 * float(row.miou):.1f} @ {row.threshold}" if row.miou else "-"
