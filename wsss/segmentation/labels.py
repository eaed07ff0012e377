"""Which label maps DeepLab learns from: pseudo-labels or, if asked for, masks."""

from __future__ import annotations

from pathlib import Path

from wsss.data.index import Index, read_masks
from wsss.data.labelled import label_pngs, require_labels
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

    With `labels: pseudo` neither `masks` nor any mask is looked at.

    Raises:
        UserError: The argument that the setting needs was not given, or labels are missing.
    """
    if config.labels == "pseudo":
        if labels is None:
            raise UserError(
                "no folder of pseudo-labels was given", expected="--labels FOLDER", where="labels"
            )
        return label_pngs(index, labels, fix="run the pseudo-label stage for all training images")
    if masks is None:
        raise UserError(
            "segmentation.labels is ground_truth, and no masks.csv was given",
            expected="--masks masks.csv",
            where="masks",
        )
    known = read_masks(masks)
    fix = "add the masks, or train with segmentation.labels: pseudo"
    require_labels(index, known, where=masks, fix=fix)
    return {name: root / path for name, path in known.items()}
