"""Which label maps DeepLab learns from: pseudo-labels, predictions or, if asked for, masks."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path

from wsss.data.index import Index, read_masks, require_truth
from wsss.data.label_files import LabelFiles
from wsss.data.labelled import label_pngs
from wsss.errors import UserError
from wsss.segmentation.config import SegmentationConfig


def _mask(root: Path, masks: Mapping[str, str], name: str) -> Path:
    return root / masks[name]


def _mask_or_pseudo(known: Mapping[str, Path], pseudo: Mapping[str, Path], name: str) -> Path:
    return known[name] if name in known else pseudo[name]


def find_labels(
    config: SegmentationConfig,
    index: Index,
    *,
    labels: Path | None,
    masks: Path | None,
    root: Path,
) -> Mapping[str, Path]:
    """Return the label PNG of every training image.

    With `labels: pseudo` and `predicted`, for which `labels` are a model's predictions, neither
    `masks` nor any mask is looked at. With `labels: mixed` an image that has a mask is learnt from
    it, every other one from its pseudo-label.

    Raises:
        UserError: The argument that the setting needs was not given, or labels are missing; of a
            mixture, all masks.
    """
    pseudo: Mapping[str, Path] = {}
    if config.labels != "ground_truth":
        if labels is None:
            raise UserError(
                f"segmentation.labels is {config.labels}, and no folder of labels was given",
                expected="--labels FOLDER",
                where="labels",
            )
        maker = "self-label" if config.labels == "predicted" else "pseudo-label"
        fix = f"run the {maker} stage for all training images"
        pseudo = label_pngs(index, labels, fix=fix)
    if config.labels in ("pseudo", "predicted"):
        return pseudo
    if masks is None:
        raise UserError(
            f"segmentation.labels is {config.labels}, and no masks.csv was given",
            expected="--masks masks.csv",
            where="masks",
        )
    listed = read_masks(masks)
    known = LabelFiles(listed.names, partial(_mask, root, listed))
    require_truth(config.labels, index, known, where=masks)
    if config.labels == "mixed":
        names = index.records.names
        corrected = int(names.found_in(known).sum())
        print(f"learning from {len(names) - corrected} pseudo-labels and {corrected} masks")
        return LabelFiles(names, partial(_mask_or_pseudo, known, pseudo))
    return known
