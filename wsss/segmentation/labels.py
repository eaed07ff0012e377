"""Which label maps DeepLab learns from: pseudo-labels, predictions or, if asked for, masks."""

from __future__ import annotations

from pathlib import Path

from wsss.data.index import Index, read_masks, require_truth
from wsss.data.labelled import label_pngs
from wsss.errors import UserError
from wsss.segmentation.config import SegmentationConfig


def find_labels(
    config: SegmentationConfig,
    index: Index,
    *,
    labels: Path | None,
    masks: Path | None,
    root: Path,
) -> dict[str, Path]:
    """Return the label PNG of every training image.

    With `labels: pseudo` and `predicted`, for which `labels` are a model's predictions, neither
    `masks` nor any mask is looked at. With `labels: mixed` an image that has a mask is learnt from
    it, every other one from its pseudo-label.

    Raises:
        UserError: The argument that the setting needs was not given, or labels are missing; of a
            mixture, all masks.
    """
    pseudo: dict[str, Path] = {}
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
    known = {name: root / path for name, path in read_masks(masks).items()}
    require_truth(config.labels, index, known, where=masks)
    if config.labels == "mixed":
        found = {name: known.get(name, path) for name, path in pseudo.items()}
        corrected = sum(name in known for name in found)
        print(f"learning from {len(found) - corrected} pseudo-labels and {corrected} masks")
        return found
    return known
