"""Scoring of a run's maps and label PNGs against the ground-truth masks (the entry points)."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from wsss.data.images import IGNORE, read_class_label
from wsss.data.index import MASK_FIX, Index, read_index, read_masks
from wsss.data.records import Sizes
from wsss.errors import UserError, listed
from wsss.evaluation.config import EvaluationConfig
from wsss.evaluation.confusion import confusion_matrix, scores_from_confusion
from wsss.evaluation.sweep import SweepCounts, as_thresholds
from wsss.evaluation.tables import CurvePoint, rows_of_scores, write_curve, write_rows
from wsss.maps.chosen import read_chosen
from wsss.runtime.pool import map_parts


@dataclass(frozen=True)
class _Truth:
    """Where the ground truth of the images lies, and which of them have tags."""

    root: Path
    masks: Mapping[str, str]
    n_classes: int
    sizes: Mapping[str, tuple[int, int]]

    def read(self, name: str) -> npt.NDArray[np.uint8]:
        path = self.root / self.masks[name]
        return read_class_label(path, self.sizes[name], self.n_classes + 1, fix=MASK_FIX)


def _prepare(
    index_path: Path, masks_path: Path, root: Path, *, stage: str, split: str
) -> tuple[Index, _Truth, list[str]]:
    """Return the images of a split, their masks, and what to say where some have none."""
    index = read_index(index_path).subset(split)
    masks = read_masks(masks_path)
    truth = _Truth(root, masks, len(index.classes), Sizes(index.records))
    total, scored = len(index.records), int(index.records.names.found_in(masks).sum())
    notes = []
    if not scored:
        notes = [f"{stage} on {split}: not scored, as none of its {total} pictures has a mask"]
    elif scored < total:
        left_out = f"the {total - scored} without one are left out"
        notes = [f"{stage} on {split}: {scored} of {total} pictures have a mask, {left_out}"]
    for note in notes:
        print(note)
    return index, truth, notes


def _check_classes(ours: Sequence[str], theirs: Sequence[str], where: Path) -> None:
    if tuple(ours) != tuple(theirs):
        raise UserError(
            f"its classes are {', '.join(theirs)}",
            where=where,
            expected=f"the index's classes: {', '.join(ours)}",
            fix="make this file again from the current index",
        )


def _count_maps(
    names: Sequence[str],
    *,
    maps: Path,
    truth: _Truth,
    thresholds: npt.NDArray[np.float32],
    untagged: Container[str],
) -> SweepCounts:
    # Here, so that scoring label PNGs starts without torch and HDF5.
    from wsss.maps.map_store import MapStore, upsample

    total = SweepCounts(truth.n_classes, thresholds)
    with MapStore(maps) as store:
        how = str(store.attributes["upsampling"])
        for name in names:
            label = truth.read(name)
            try:
                if name in untagged:
                    # No object, no map: background everywhere.
                    empty = np.zeros((0, *label.shape), dtype=np.float32)
                    total.add(label, np.zeros(0, dtype=np.int64), empty)
                    continue
                stored = store.read(name)
                total.add(label, stored.class_indices, upsample(stored.maps, stored.size, how))
            except ValueError as error:
                raise UserError(f"image {name}: {error}", where=maps) from error
    return total


def _background(
    background: float | None, thresholds: Path | None, stage: str
) -> tuple[float, list[str]]:
    """Return the configured background score, and how it came about where it was chosen."""
    if (background is None) == (thresholds is None):
        raise UserError(
            f"{'no' if background is None else 'a number and a file of'} background score given",
            where="--background, --thresholds",
            expected="one of the two",
        )
    if thresholds is not None:
        found = read_chosen(thresholds, "cam" if stage == "cam" else "walked")
        note = f"{stage}: configured is auto, chosen as {found['score']:g} by {found['method']}"
        return float(found["score"]), [note]
    assert background is not None
    if not 0.0 <= background <= 1.0:
        raise UserError(f"the background score is {background}", expected="a number in 0..1")
    return background, []


def score_maps(
    *,
    config: EvaluationConfig,
    maps: Path,
    index: Path,
    masks: Path,
    root: Path,
    output: Path,
    curve: Path,
    plot: Path,
    run: str,
    stage: str,
    split: str,
    background: float | None = None,
    thresholds: Path | None = None,
    workers: int = 2,
) -> None:
    """Score class maps at the configured background score and at the best of a sweep.

    Images without a mask are left out, which the table says. The maps are read once for all
    background scores. The best one is chosen with the ground
    truth in sight, which is why its rows are marked `best`; of equals the lowest is taken.

    Args:
        config: Background scores of the sweep.
        maps: Map store (HDF5) with the maps of every tagged image of the split.
        index: `index.csv`.
        masks: `masks.csv`.
        root: Data root, to which the mask paths are relative.
        output: CSV of scores to write.
        curve: CSV of the sweep to write.
        plot: PNG of the sweep to write.
        run: Name of the run, for the tables.
        stage: `cam` or `pseudo_label`.
        split: Image set that is scored.
        background: The configured background score, 0..1; left away where it was chosen.
        thresholds: In its place, the file of scores that were chosen from the maps (JSON).
        workers: Processes that share the images.

    Raises:
        UserError: The split is empty, an image has no map, or the store holds other classes than
            the index; or there is not one of `background` and `thresholds`.
    """
    from wsss.maps.map_store import MapStore

    background, how = _background(background, thresholds, stage)
    records, truth, notes = _prepare(index, masks, root, stage=stage, split=split)
    notes += how
    with MapStore(maps) as store:
        _check_classes(records.classes, store.classes, maps)
        stored = store.names
    missing = [r.name for r in records.records if r.tags and r.name not in stored]
    if missing:
        raise UserError(
            f"{len(missing)} of {len(records.records)} images of split '{split}' have no maps: "
            f"{listed(missing)}",
            where=maps,
            fix="export the maps of this split, or score another one",
        )
    values = config.thresholds(background)
    bands = as_thresholds(values)
    every = records.records
    names = every.take(every.names.found_in(truth.masks)).names
    untagged = every.take(~every.tagged & ~every.names.found_in(stored)).names
    # matplotlib is slow to import and only this needs it.
    from wsss.evaluation.plots import plot_curve

    if not names:
        write_rows(output, [], notes=notes)
        write_curve(curve, [])
        plot_curve(plot, [], configured=None, best=None, title=f"{run}: {notes[0]}")
        return
    count = partial(_count_maps, maps=maps, truth=truth, thresholds=bands, untagged=untagged)
    counts, *others = map_parts(count, names, workers)
    for other in others:
        counts.merge(other)
    scores = [scores_from_confusion(counts.confusion(i)) for i in range(len(values))]
    points = [
        CurvePoint(value, s.mean_iou, s.mean_precision, s.mean_recall)
        for value, s in zip(values, scores, strict=True)
    ]
    configured = values.index(round(background, 6))
    best = int(np.argmax([-1.0 if np.isnan(point.iou) else point.iou for point in points]))
    rows = []
    for selection, position in (("configured", configured), ("best", best)):
        rows += rows_of_scores(
            scores[position],
            records.classes,
            run=run,
            stage=stage,
            labels="pseudo",
            split=split,
            selection=selection,
            threshold=values[position],
        )
    write_rows(output, rows, notes=notes)
    write_curve(curve, points)
    plot_curve(plot, points, configured=configured, best=best, title=f"{run}: {stage} on {split}")


def _count_labels(
    names: Sequence[str], *, labels: Path, truth: _Truth
) -> tuple[npt.NDArray[np.int64], float]:
    """Return the confusion matrix, and the share of the pixels whose label is 255."""
    n_labels = truth.n_classes + 1
    total = np.zeros((n_labels, n_labels), dtype=np.int64)
    unsure = pixels = 0
    for name in names:
        label = read_class_label(labels / f"{name}.png", truth.sizes[name], n_labels)
        total += confusion_matrix(truth.read(name), label, n_labels)
        unsure += int((label == IGNORE).sum())
        pixels += label.size
    return total, unsure / pixels


def _mixture(index: Index, masks: Mapping[str, str]) -> str:
    names = index.training_set().records.names
    with_mask = int(names.found_in(masks).sum())
    return f"{len(names) - with_mask} pseudo + {with_mask} masks"


def score_labels(
    *,
    labels: Path,
    index: Path,
    masks: Path,
    root: Path,
    output: Path,
    run: str,
    stage: str,
    split: str,
    labels_kind: str = "pseudo",
) -> None:
    """Score a folder of label PNGs (`NAME.png`); images without a mask are left out.

    Args:
        labels: Folder of label PNGs; 255 in them counts as background.
        index: `index.csv`.
        masks: `masks.csv`.
        root: Data root, to which the mask paths are relative.
        output: CSV of scores to write.
        run: Name of the run, for the tables.
        stage: Such as `segmentation` or `segmentation_crf`.
        split: Image set that is scored.
        labels_kind: What the segmentation learnt from, for the table: `pseudo`, `ground_truth`,
            `mixed`, or the run that predicted it; of predicted labels themselves, that run.

    Raises:
        UserError: The split is empty, or an image has no prediction.
    """
    records, truth, notes = _prepare(index, masks, root, stage=stage, split=split)
    if labels_kind == "mixed":
        notes.append(f"{stage}: learnt from {_mixture(read_index(index), truth.masks)}")
    names = records.records.names
    missing = [name for name in names if not (labels / f"{name}.png").is_file()]
    if missing:
        raise UserError(
            f"{len(missing)} of {len(names)} images of split '{split}' have no prediction: "
            f"{listed(missing)}",
            where=labels,
            expected="one NAME.png for every image of the split",
            fix="run the prediction of this split, or score another one",
        )
    names = names.take(np.flatnonzero(names.found_in(truth.masks)))
    if not names:
        write_rows(output, [], notes=notes)
        return
    confusion, unsure = _count_labels(names, labels=labels, truth=truth)
    if unsure:
        share = f"{100 * unsure:.1f} % of the pixels have no label (255)"
        notes.append(f"{stage} on {split}: {share} and count as background")
    rows = rows_of_scores(
        scores_from_confusion(np.asarray(confusion)),
        records.classes,
        run=run,
        stage=stage,
        labels=labels_kind,
        split=split,
        selection="configured",
        threshold=None,
    )
    write_rows(output, rows, notes=notes)
