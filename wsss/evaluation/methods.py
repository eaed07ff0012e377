"""Methods side by side: mean and spread of their scores over seeds, and how long they trained."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

from wsss.errors import UserError
from wsss.evaluation.tables import (
    STAGES,
    Row,
    number,
    percent,
    read_rows,
    text_table,
    write_rows,
)
from wsss.runtime.times import read_seconds

# Scored stage -> the trainings behind it, by the names of their benchmark files; of a method that
# goes without one there is no such file.
TRAININGS: Mapping[str, tuple[str, ...]] = {
    "cam": ("cam", "lpcam"),
    "pseudo_label": ("cam", "lpcam", "irn"),
    "segmentation": ("cam", "lpcam", "irn", "segmentation"),
}
COLUMNS = (
    "method",
    "stage",
    "split",
    "selection",
    "seeds",
    "miou",
    "miou_sd",
    "miou_by_seed",
    "threshold_by_seed",
    "training_s",
)
Scores = Mapping[str, Mapping[str, Sequence[Path]]]


def method_rows(scores: Scores) -> list[Row]:
    """Return what stands in the CSV: a row for each method, scored stage and selection.

    `miou` is the mean over seeds, `miou_sd` their sample standard deviation (divided by n - 1),
    empty for one seed; `training_s` the mean time of all trainings as far as that stage, empty
    where a time is not known.

    Args:
        scores: Method -> seed -> score tables in `results/<run>/evaluation/`.

    Raises:
        UserError: A table is missing or has other columns, or the seeds of a method were scored
            differently.
    """
    rows: list[Row] = []
    for method, by_seed in scores.items():
        means = {seed: _means(paths) for seed, paths in by_seed.items()}
        first = next(iter(means.values()))
        for seed, found in means.items():
            if set(found) != set(first):
                raise UserError(
                    f"seed {seed} has scores of {_named(found)}, another seed of {_named(first)}",
                    where=", ".join(map(str, by_seed[seed])),
                    expected="the same scores of every seed",
                    fix="make this table with Snakemake, which makes what is missing",
                )
        for key in sorted(first, key=lambda key: (STAGES.index(key[0]), key[2] == "best")):
            of_seeds = [found[key] for found in means.values()]
            folders = [paths[0].parent.parent for paths in by_seed.values()]
            rows.append(_row(method, key, list(means), of_seeds, folders))
    return rows


def _means(paths: Sequence[Path]) -> dict[tuple[str, str, str], Row]:
    """Return the means of one seed's tables, by stage, split and selection."""
    rows = (row for path in paths for row in read_rows(path) if row["class"] == "mean")
    found = {(row["stage"], row["split"], row["selection"]): row for row in rows}
    if not found:
        raise UserError(
            "nothing here was scored",
            where=", ".join(map(str, paths)),
            expected="masks of the set that is scored, and a method that goes as far",
        )
    return found


def _named(found: Mapping[tuple[str, str, str], Row]) -> str:
    return ", ".join(" ".join(key) for key in sorted(found))


def _row(
    method: str,
    key: tuple[str, str, str],
    seeds: Sequence[str],
    means: Sequence[Row],
    folders: Sequence[Path],
) -> Row:
    stage, split, selection = key
    values = [float(mean["iou"]) for mean in means if mean["iou"]]
    whole = len(values) == len(means)
    times = [_training_s(folder, stage) for folder in folders]
    known = [time for time in times if time is not None]
    return {
        "method": method,
        "stage": stage,
        "split": split,
        "selection": selection,
        "seeds": " ".join(seeds),
        "miou": number(statistics.fmean(values)) if whole else "",
        "miou_sd": number(statistics.stdev(values)) if whole and len(values) > 1 else "",
        "miou_by_seed": " ".join(mean["iou"] or "-" for mean in means),
        "threshold_by_seed": " ".join(mean["threshold"] or "-" for mean in means),
        "training_s": f"{statistics.fmean(known):.1f}" if len(known) == len(times) else "",
    }


def _training_s(folder: Path, stage: str) -> float | None:
    """Return the seconds of the trainings of a run as far as a scored stage; None: not known."""
    files = [
        folder / "benchmarks" / f"{name}.tsv" for name in TRAININGS[stage.removesuffix("_crf")]
    ]
    total = 0.0
    for file in files:
        if file.is_file():
            total += read_seconds(file)
    return total or None


def collect_methods(*, scores: Mapping[str, Path], output: Path, plot: Path) -> list[Row]:
    """Write the scores of all methods as one CSV and a plot, print them, and return the rows.

    Args:
        scores: `METHOD.seed-N.STAGE` -> `evaluation/<stage>.csv` of the run of that method and
            seed.
        output: CSV to write.
        plot: PNG to write.
    """
    from wsss.evaluation.plots import plot_methods

    tables: dict[str, dict[str, list[Path]]] = {}
    for name, path in scores.items():
        method, _, rest = name.partition(".seed-")
        seed, _, stage = rest.partition(".")
        if not (method and seed and stage):
            raise UserError(f"'{name}' is no name of scores", expected="METHOD.seed-N.STAGE=PATH")
        tables.setdefault(method, {}).setdefault(seed, []).append(path)
    rows = method_rows(tables)
    write_rows(output, rows, COLUMNS)
    plot_methods(plot, rows)
    print(format_methods(rows))
    return rows


def format_methods(rows: Sequence[Row]) -> str:
    """Return mean and sample standard deviation in percent as a text table."""
    table = [["method", "stage", "split", "selection", "seeds", "mIoU", "SD", "training, min"]]
    for row in rows:
        minutes = f"{float(row['training_s']) / 60:.1f}" if row["training_s"] else "-"
        spread = percent(row["miou_sd"])
        count = str(len(row["seeds"].split()))
        named = [row[key] for key in ("method", "stage", "split", "selection")]
        table.append([*named, count, percent(row["miou"]), spread, minutes])
    return text_table(table, left=4)
