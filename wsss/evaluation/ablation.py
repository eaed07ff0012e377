"""Ablation tables: the CAM scores of a run's variants in one CSV, and a text table for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from wsss.errors import UserError
from wsss.evaluation.tables import Row, percent, read_rows, text_table, write_rows

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


# `published_miou` is what the paper reports; the others stand in the score tables, in 0..1.
_SCORES = ("run", "split", "selection", "threshold", "miou", "precision", "recall")
COLUMNS = ("variant", *_SCORES, "published_miou")


def ablation_rows(scores: Mapping[str, Path]) -> list[Row]:
    """Return the means of each variant's CAM scores, by column, as they stand in the CSV.

    Args:
        scores: Variant -> `evaluation/cam.csv` of the run that it is.

    Raises:
        UserError: A table is missing, has other columns, or lacks the means; or the variants
            were scored on different image sets.
    """
    rows: list[Row] = []
    for variant, path in scores.items():
        means = {
            row["selection"]: row
            for row in read_rows(path)
            if row["stage"] == "cam" and row["class"] == "mean"
        }
        if set(means) != set(SELECTIONS):
            raise UserError(
                f"only the means of {', '.join(sorted(means))} are there"
                if means
                else "no CAMs were scored here",
                where=path,
                expected=f"the CAMs' means of {' and '.join(SELECTIONS)}: masks of pictures of "
                "`evaluation.seed_split`",
            )
        published = f"{PUBLISHED[variant] / 100:.3f}" if variant in PUBLISHED else ""
        for selection in SELECTIONS:
            mean = {**means[selection], "miou": means[selection]["iou"]}
            scores_of_row = {key: mean[key] for key in _SCORES}
            rows.append({"variant": variant, **scores_of_row, "published_miou": published})
    splits = sorted({row["split"] for row in rows})
    if len(splits) > 1:
        raise UserError(
            f"the variants were scored on different image sets: {', '.join(splits)}",
            where=", ".join(map(str, scores.values())),
            fix="give them the same evaluation.seed_split",
        )
    return rows


def collect_ablation(*, scores: Mapping[str, Path], output: Path) -> list[Row]:
    """Write the scores of all variants as one CSV, print its means, and return its rows.

    Args:
        scores: Variant -> `evaluation/cam.csv` of the run that it is.
        output: CSV to write.
    """
    rows = ablation_rows(scores)
    write_rows(output, rows, COLUMNS)
    print(format_ablation(rows))
    return rows


def format_ablation(rows: Sequence[Row]) -> str:
    """Return the mIoU of each variant in percent as a text table, published values beside it.

    A background score stands after `@`; `best` was chosen with the ground truth in sight.
    """
    has_published = any(row["published_miou"] for row in rows)
    table = [["variant", "split", "mIoU configured", "mIoU best"]]
    table[0] += ["published (VOC train)"] * has_published
    for configured, best in zip(rows[::2], rows[1::2], strict=True):
        means = [percent(row["miou"], row["threshold"]) for row in (configured, best)]
        published = [percent(best["published_miou"])] * has_published
        table.append([best["variant"], best["split"], *means, *published])
    return text_table(table, left=2)
