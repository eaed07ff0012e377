"""Training images with a label map each, whichever labels they are."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from torch import Tensor

from wsss.data import transforms
from wsss.data.images import read_class_label, read_sized_image
from wsss.data.index import ImageRecord, Index, require_labels
from wsss.data.label_files import LabelFiles
from wsss.runtime.names import Names


class CropSettings(Protocol):
    """How a sample is cut out."""

    @property
    def crop_px(self) -> int:
        """Side of the square crop."""
        ...

    @property
    def scale_min(self) -> float:
        """Smallest factor of the random resizing."""
        ...

    @property
    def scale_max(self) -> float:
        """Largest factor of the random resizing."""
        ...

    @property
    def flip(self) -> bool:
        """Whether half of the images are mirrored."""
        ...


class LabelledImages:
    """Images and label maps, augmented: random scale, mirror, crop.

    Args:
        config: Crop, scales, mirror.
        index: Training images.
        root: Data root of the images.
        labels: Label PNG of every image, by its name.
        augment: False: each image whole, the same every time.
    """

    def __init__(
        self,
        config: CropSettings,
        index: Index,
        root: Path,
        labels: Mapping[str, Path],
        *,
        augment: bool = True,
    ) -> None:
        self._augment = augment
        self._config, self._records, self._root = config, index.records, root
        self._n_labels, self._labels = len(index.classes) + 1, labels
        self.names = index.records.names

    def labels_hash(self) -> str:
        """Return a hash of the label files' content, so that no training goes on with others."""
        digest = hashlib.sha256()
        for name in self.names:
            digest.update(name.encode() + b"\0")
            digest.update(hashlib.sha256(self._labels[name].read_bytes()).digest())
        return digest.hexdigest()[:16]

    def load(self, position: int, rng: np.random.Generator) -> dict[str, Any]:
        """Return one augmented sample.

        Returns:
            `image` (3, S, S) float32 in 0..1, `valid` (1, S, S) bool, `target` (S, S) int64 with
            255 on padding and unlabelled pixels, `name`.

        Raises:
            UserError: The picture is not the index's, or the label map does not fit it.
        """
        config, record = self._config, self._records[position]
        pixels = read_sized_image(self._root, record)
        image = transforms.image_to_tensor(pixels)
        label = transforms.label_to_tensor(self._read_label(record))
        crop = (
            self._drawn(image, label, rng)
            if self._augment
            else transforms.whole_crop(image, label, config.crop_px)
        )
        return {
            "image": crop.image,
            "valid": crop.valid,
            "target": crop.target,
            "name": record.name,
        }

    def _drawn(self, image: Tensor, label: Tensor, rng: np.random.Generator) -> transforms.Crop:
        config = self._config
        scaled = transforms.random_scale(image, label, config.scale_min, config.scale_max, rng)
        if config.flip:
            scaled = transforms.random_flip(*scaled, rng)
        return transforms.random_crop(*scaled, config.crop_px, rng)

    def _read_label(self, record: ImageRecord) -> np.ndarray:
        return read_class_label(
            self._labels[record.name],
            (record.height, record.width),
            self._n_labels,
            fix="make the labels again from the current images",
        )


def _png(folder: Path, name: str) -> Path:
    return folder / f"{name}.png"


def label_pngs(index: Index, folder: Path, *, fix: str) -> LabelFiles:
    """Return the label PNG of every image in a folder of them.

    Raises:
        UserError: Some are missing; `fix` says what makes them.
    """
    names = index.records.names
    there = Names(name for name in names if _png(folder, name).is_file())
    require_labels(index, there, where=folder, fix=fix)
    return LabelFiles(names, partial(_png, folder))
