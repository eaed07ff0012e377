"""Scoring without masks: the classes that predictions hold against the image-level tags."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from wsss.data.images import IGNORE, read_label
from wsss.data.index import Records, read_index
from wsss.errors import UserError, listed
from wsss.evaluation.config import EvaluationConfig
from wsss.evaluation.confusion import defined_mean
from wsss.evaluation.tables import Row, number, percent, read_table, text_table
from wsss.files import read_text, write_text

COLUMNS = (
    *("run", "stage", "split", "class", "images", "tagged", "predicted", "correct"),
    *("precision", "recall", "f1", "area", "empty"),
)

# Images of which the share of each class is kept at a time.
_PART = 10_000


@dataclass(frozen=True)
class TagScores:
    """Counts of images by class, and what follows from them; NaN where undefined.

    Attributes:
        tagged: (C,) int64, images with the tag.
        predicted: (C,) int64, images whose prediction has the class.
        correct: (C,) int64, images with both.
        area: (C,) float64, share of all pixels that were given the class.
        images: Number of images.
        empty: Images whose prediction has no class at all.
    """

    tagged: npt.NDArray[np.int64]
    predicted: npt.NDArray[np.int64]
    correct: npt.NDArray[np.int64]
    area: npt.NDArray[np.float64]
    images: int
    empty: int


def shares_of(label: npt.NDArray[np.uint8], n_classes: int) -> npt.NDArray[np.float64]:
    """Return (C,) float64: the share of an image's pixels that has each class; 255 has none."""
    counts = np.bincount(label.reshape(-1), minlength=IGNORE + 1)
    shares: npt.NDArray[np.float64] = counts[1 : n_classes + 1] / label.size
    return shares


def tag_scores(
    tags: npt.NDArray[np.bool_],
    shares: npt.NDArray[np.float64],
    pixels: npt.NDArray[np.int64],
    *,
    min_share: float,
) -> TagScores:
    """Compare tags with predictions.

    Args:
        tags: (N, C), whether an image has the tag.
        shares: (N, C), share of the image's pixels that was given the class.
        pixels: (N,), pixels of each image.
        min_share: Share from which a class counts as predicted.
    """
    found = (shares > 0) & (shares >= min_share)
    area = (shares * pixels[:, None]).sum(axis=0) / pixels.sum()
    return TagScores(
        tagged=tags.sum(axis=0),
        predicted=found.sum(axis=0),
        correct=(tags & found).sum(axis=0),
        area=area,
        images=len(tags),
        empty=int((~found.any(axis=1)).sum()),
    )


def together(parts: Sequence[tuple[TagScores, int]]) -> TagScores:
    """Return the scores of several parts of the images, at least one.

    Args:
        parts: Scores, and pixels in all, of each.
    """
    (first, pixels), *others = parts
    for each, more in others:
        both = pixels + more
        first = TagScores(
            tagged=first.tagged + each.tagged,
            predicted=first.predicted + each.predicted,
            correct=first.correct + each.correct,
            area=(first.area * pixels + each.area * more) / both,
            images=first.images + each.images,
            empty=first.empty + each.empty,
        )
        pixels = both
    return first


def _scores_of(
    records: Records, classes: Sequence[str], labels: Path, config: EvaluationConfig
) -> tuple[TagScores, int]:
    """Return the scores of some images, and how many pixels these have."""
    shares, pixels = [], []
    for name in records.names:
        label = read_label(labels / f"{name}.png")
        shares.append(shares_of(label, len(classes)))
        pixels.append(label.size)
    tags = records.multi_hot(classes) > 0
    sizes = np.array(pixels, dtype=np.int64)
    return tag_scores(tags, np.array(shares), sizes, min_share=config.tag_share), sum(pixels)


def _rates(tagged: int, predicted: int, correct: int) -> tuple[float, float, float]:
    """Return precision, recall and F1; NaN where undefined."""
    nan = float("nan")
    precision = correct / predicted if predicted else nan
    recall = correct / tagged if tagged else nan
    return precision, recall, 2 * correct / (tagged + predicted) if tagged + predicted else nan


def _rows(scores: TagScores, classes: Sequence[str], common: Mapping[str, str]) -> list[list[str]]:
    rows, rates = [], []
    start = list(common.values())
    counts = zip(scores.tagged, scores.predicted, scores.correct, strict=True)
    for name, (tagged, predicted, correct), area in zip(classes, counts, scores.area, strict=True):
        rates.append(_rates(int(tagged), int(predicted), int(correct)))
        numbers = [*map(number, rates[-1]), number(float(area)), ""]
        rows.append([*start, name, str(scores.images), *map(str, (tagged, predicted, correct))])
        rows[-1] += numbers
    means = [number(defined_mean(np.array(column))) for column in zip(*rates, strict=True)]
    rows.append([*start, "mean", str(scores.images), "", "", "", *means, "", ""])
    totals = [int(column.sum()) for column in (scores.tagged, scores.predicted, scores.correct)]
    pooled = [*map(number, _rates(*totals)), number(float(scores.area.sum())), str(scores.empty)]
    rows.append([*start, "all", str(scores.images), *map(str, totals), *pooled])
    return rows


def score_tags(
    *,
    config: EvaluationConfig,
    labels: Path,
    index: Path,
    output: Path,
    run: str,
    stage: str,
    split: str,
) -> None:
    """Score the classes that predictions hold against the tags of a split; no mask is needed.

    Images without tags are left out: whether they hold nothing, or nobody looked, is not known.

    Args:
        config: The share of a picture from which a class counts as predicted.
        labels: Folder of label PNGs.
        index: `index.csv`.
        output: CSV to write.
        run: Name of the run, for the table.
        stage: `segmentation` or `segmentation_crf`.
        split: Image set whose tags are compared with.

    Raises:
        UserError: The split is empty, or an image has no prediction.
    """
    chosen = read_index(index).subset(split)
    tagged = chosen.records.take(chosen.records.tagged)
    missing = [name for name in tagged.names if not (labels / f"{name}.png").is_file()]
    if missing:
        raise UserError(
            f"{len(missing)} of {len(tagged)} images of split '{split}' have no prediction: "
            f"{listed(missing)}",
            where=labels,
            fix="run the prediction of this split, or score another one",
        )
    common = {"run": run, "stage": stage, "split": split}
    rows: list[list[str]] = []
    if tagged:
        parts = (tagged[start : start + _PART] for start in range(0, len(tagged), _PART))
        scores = together([_scores_of(part, chosen.classes, labels, config) for part in parts])
        rows = _rows(scores, chosen.classes, common)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([COLUMNS, *rows])
    write_text(output, text.getvalue())
    if len(tagged) < len(chosen.records):
        left_out = len(chosen.records) - len(tagged)
        print(f"{left_out} of {len(chosen.records)} pictures have no tags and are left out")
    print(format_tags(output))


def read_tags(path: Path) -> list[Row]:
    """Read a table that `score_tags` wrote.

    Raises:
        UserError: It is missing, has other columns, or cells that do not fit them.
    """
    lines = list(io.StringIO(read_text(path), newline=""))
    return read_table(path, lines, COLUMNS, ("precision", "recall", "f1", "area"))


def format_tags(path: Path) -> str:
    """Return the table as text: precision, recall, F1 and area in percent."""
    rows = read_tags(path)
    if not rows:
        return "classes against tags: no picture of this split has tags"
    lines = [["class", "tagged", "found", "correct", "precision", "recall", "F1", "area"]]
    for row in rows:
        counts = [row[key] or "-" for key in ("tagged", "predicted", "correct")]
        rates = [percent(row[key]) for key in ("precision", "recall", "f1", "area")]
        lines.append([row["class"], *counts, *rates])
    last = rows[-1]
    title = (
        f"{last['run']}: classes that {last['stage']} finds in {last['images']} pictures of "
        f"{last['split']}, against their tags (%); in {last['empty']} it finds none"
    )
    return f"{title}\n{text_table(lines, left=1)}"
