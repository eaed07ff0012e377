"""The training images with their label maps, from pseudo-labels or, if asked for, masks."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from wsss.data import transforms
from wsss.data.images import IGNORE, read_image, read_label
from wsss.data.index import Index, read_index, read_masks
from wsss.errors import UserError, listed
from wsss.segmentation.config import SegmentationConfig


class SegmentationDataset:
    """Images and label maps, augmented: random scale, flip, crop.

    Args:
        config: Crop, scales, flip.
        index: Training images.
        root: Data root of the images.
        labels: Label PNG of every image.
    """

    def __init__(
        self,
        config: SegmentationConfig,
        index: Index,
        root: Path,
        labels: Mapping[str, Path],
    ) -> None:
        self._config = config
        self._records = index.records
        self._n_labels = len(index.classes) + 1
        self._root = root
        self._labels = labels
        self.names: Sequence[str] = tuple(record.name for record in index.records)

    def __len__(self) -> int:
        return len(self.names)

    def load(self, position: int, rng: np.random.Generator) -> dict[str, Any]:
        """Return one augmented sample.

        Returns:
            `image` (3, S, S) float32 in 0..1, `valid` (1, S, S) bool, `target` (S, S) int64 with
            255 on padding and unlabelled pixels, `name`.

        Raises:
            UserError: The label map does not fit the image or holds an unknown label.
        """
        record = self._records[position]
        image = transforms.image_to_tensor(read_image(self._root / record.path))
        label = self._read_label(record.name, tuple(image.shape[1:]))
        target = transforms.label_to_tensor(label)
        config = self._config
        image, resized = transforms.random_scale(
            image, target, config.scale_min, config.scale_max, rng
        )
        if config.flip:
            image, resized = transforms.random_flip(image, resized, rng)
        crop = transforms.random_crop(image, resized, config.crop_px, rng)
        return {
            "image": crop.image,
            "valid": crop.valid,
            "target": crop.target,
            "name": record.name,
        }

    def _read_label(self, name: str, size: tuple[int, ...]) -> np.ndarray:
        path = self._labels[name]
        label = read_label(path)
        if label.shape != size:
            raise UserError(
                f"this label map is {label.shape[1]} x {label.shape[0]} px",
                where=path,
                expected=f"the image's {size[1]} x {size[0]} px",
                fix="make the labels again from the current images",
            )
        known = label[label != IGNORE]
        if known.size and int(known.max()) >= self._n_labels:
            raise UserError(
                f"this label map holds the label {known.max()}",
                where=path,
                expected=f"0..{self._n_labels - 1}, or 255",
            )
        return label


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
        found = {record.name: labels / f"{record.name}.png" for record in index.records}
        missing = [name for name, path in found.items() if not path.is_file()]
        where, fix = labels, "run the pseudo-label stage for all training images"
    else:
        if masks is None:
            raise UserError(
                "segmentation.labels is ground_truth, and no masks.csv was given",
                expected="--masks masks.csv",
                where="masks",
            )
        known = read_masks(masks)
        missing = [record.name for record in index.records if record.name not in known]
        found = {name: root / path for name, path in known.items()}
        where, fix = masks, "add the masks, or train with segmentation.labels: pseudo"
    if missing:
        raise UserError(
            f"{len(missing)} of {len(index.records)} training images have no label map: "
            f"{listed(missing)}",
            where=where,
            expected="one for every image of the training set",
            fix=fix,
        )
    return found


def labels_hash(paths: Mapping[str, Path], names: Sequence[str]) -> str:
    """Return a hash of the label files' content, so that no training goes on with other labels."""
    digest = hashlib.sha256()
    for name in names:
        digest.update(name.encode() + b"\0")
        digest.update(hashlib.sha256(paths[name].read_bytes()).digest())
    return digest.hexdigest()[:16]


def open_dataset(
    config: SegmentationConfig,
    *,
    index_path: Path,
    labels: Path | None,
    masks: Path | None,
    root: Path,
) -> tuple[Index, SegmentationDataset, str]:
    """Return the training index, the data set and the hash of its labels."""
    index = read_index(index_path).training_set()
    paths = find_labels(config, index, labels=labels, masks=masks, root=root)
    dataset = SegmentationDataset(config, index, root, paths)
    return index, dataset, labels_hash(paths, dataset.names)
