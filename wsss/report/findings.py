"""What the predictions of a run are like, picture by picture."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from wsss.data.images import read_class_label
from wsss.data.index import MASK_FIX, ImageRecord, Index
from wsss.evaluation.confusion import confusion_matrix, scores_from_confusion
from wsss.evaluation.tags import shares_of


@dataclass(frozen=True)
class Picture:
    """What was predicted in one picture.

    Attributes:
        record: The picture.
        found: Class -> share of the picture, 0..1, of the classes predicted in it.
        iou: Mean IoU over the labels in mask or prediction; None: it has no mask.
    """

    record: ImageRecord
    found: Mapping[str, float]
    iou: float | None

    @property
    def extra(self) -> tuple[str, ...]:
        """Classes that were predicted and are no tags."""
        return tuple(name for name in self.found if name not in self.record.tags)

    @property
    def missing(self) -> tuple[str, ...]:
        """Tags that were not predicted."""
        return tuple(name for name in self.record.tags if name not in self.found)

    @property
    def contradicts(self) -> bool:
        """Whether prediction and tags disagree; a picture without tags says nothing."""
        return bool(self.record.tags) and bool(self.extra or self.missing)

    @property
    def tag_score(self) -> float:
        """F1 of the predicted classes against the tags, 0..1; 1 where there are neither."""
        both = len(self.found) + len(self.record.tags)
        return 2 * (len(self.found) - len(self.extra)) / both if both else 1.0


@dataclass(frozen=True)
class TagScore:
    """How often one class is predicted where it is tagged, and where it is not."""

    name: str
    tagged: int
    found: int
    both: int

    @property
    def precision(self) -> float | None:
        """Share of the pictures it was predicted in that have the tag."""
        return self.both / self.found if self.found else None

    @property
    def recall(self) -> float | None:
        """Share of the pictures with the tag that it was predicted in."""
        return self.both / self.tagged if self.tagged else None


@dataclass(frozen=True)
class Findings:
    """What the predictions of a split are like.

    Attributes:
        pictures: Every picture of the split, by name.
        classes: Names without background.
        confusion: (1 + classes, 1 + classes) int64 over the pictures with masks, rows the truth;
            None: no picture has a mask.
    """

    pictures: tuple[Picture, ...]
    classes: tuple[str, ...]
    confusion: npt.NDArray[np.int64] | None

    @property
    def by_merit(self) -> tuple[Picture, ...]:
        """The pictures from the best to the worst: by IoU where there are masks, else by tags."""
        scored = [each for each in self.pictures if each.iou is not None]
        if scored:
            return tuple(sorted(scored, key=lambda each: (-(each.iou or 0.0), each.record.name)))
        tagged = [each for each in self.pictures if each.record.tags]
        return tuple(sorted(tagged, key=lambda each: (-each.tag_score, each.record.name)))

    @property
    def contradictions(self) -> tuple[Picture, ...]:
        """The pictures whose predicted classes are not their tags, the worst first."""
        found = [each for each in self.pictures if each.contradicts]
        return tuple(sorted(found, key=lambda each: (each.tag_score, each.record.name)))

    @property
    def tag_scores(self) -> tuple[TagScore, ...]:
        """Every class against the tags, over the pictures that have any."""
        tagged = [each for each in self.pictures if each.record.tags]
        return tuple(
            TagScore(
                name,
                sum(name in each.record.tags for each in tagged),
                sum(name in each.found for each in tagged),
                sum(name in each.record.tags and name in each.found for each in tagged),
            )
            for name in self.classes
        )


def examine(
    index: Index, *, labels: Path, masks: Mapping[str, str], root: Path, min_share: float
) -> Findings:
    """Look at the predictions of every image of an index.

    Args:
        index: The images of one split.
        labels: Folder of label PNGs, `NAME.png`.
        masks: Name -> path of the mask, relative to `root`, of the images that have one.
        root: Data root.
        min_share: Share of a picture, 0..1, from which a class counts as predicted in it.

    Raises:
        UserError: A label map or a mask is missing or damaged, of another size than its picture,
            or has a label of no class.
    """
    n_labels = len(index.classes) + 1
    total = np.zeros((n_labels, n_labels), dtype=np.int64)
    pictures = []
    for record in index.records:
        size = record.height, record.width
        label = read_class_label(labels / f"{record.name}.png", size, n_labels)
        iou = None
        if record.name in masks:
            path = root / masks[record.name]
            truth = read_class_label(path, size, n_labels, fix=MASK_FIX)
            matrix = confusion_matrix(truth, label, n_labels)
            total += matrix
            iou = scores_from_confusion(matrix).mean_iou
        shares = shares_of(label, len(index.classes))
        found = {
            name: float(share)
            for name, share in zip(index.classes, shares, strict=True)
            if share > 0 and share >= min_share
        }
        pictures.append(Picture(record, found, _defined(iou)))
    scored = any(each.iou is not None for each in pictures)
    return Findings(tuple(pictures), index.classes, total if scored else None)


def _defined(value: float | None) -> float | None:
    return None if value is None or math.isnan(value) else value


def representative(ranked: Sequence[Picture], each: int) -> dict[str, tuple[Picture, ...]]:
    """Choose from pictures ranked from best to worst; no picture is chosen twice.

    Args:
        ranked: The pictures.
        each: How many of each kind, at most.

    Returns:
        "best", "median" and "worst" -> pictures, in the order given.
    """
    count = min(each, math.ceil(len(ranked) / 3))
    middle = max(count, (len(ranked) - count) // 2)
    last = max(middle + count, len(ranked) - count)
    return {
        "best": tuple(ranked[:count]),
        "median": tuple(ranked[middle : middle + count]),
        "worst": tuple(ranked[last:]),
    }
