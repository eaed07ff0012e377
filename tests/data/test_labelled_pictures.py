"""Pictures with label maps: the labels that a training knows, and what names their content."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from wsss.data.images import write_label
from wsss.data.index import ImageRecord, Index
from wsss.data.labelled import LabelledImages
from wsss.errors import UserError
from wsss.segmentation.config import SegmentationConfig

RECORDS = [ImageRecord(name, ("train",), ("cat",), 9, 6, f"{name}.png") for name in "ab"]


def _labelled(folder: Path, *values: int) -> LabelledImages:
    for record, value in zip(RECORDS, values, strict=True):
        Image.new("RGB", (9, 6)).save(folder / record.path)
        write_label(folder / f"{record.name}_label.png", np.full((6, 9), value, np.uint8))
    labels = {record.name: folder / f"{record.name}_label.png" for record in RECORDS}
    config = SegmentationConfig(crop_px=32)
    return LabelledImages(config, Index(("cat", "dog"), RECORDS), folder, labels, augment=False)


def test_labels_are_those_of_the_classes(tmp_path: Path) -> None:
    pictures = _labelled(tmp_path, 2, 3)
    target = pictures.load(0, np.random.default_rng(0))["target"]
    assert set(target.unique().tolist()) == {2, 255}
    with pytest.raises(UserError, match="3"):
        pictures.load(1, np.random.default_rng(0))


def test_labels_are_told_apart_by_name_and_content(tmp_path: Path) -> None:
    pictures = _labelled(tmp_path, 1, 2)
    expected = hashlib.sha256()
    for name in "ab":
        content = (tmp_path / f"{name}_label.png").read_bytes()
        expected.update(name.encode() + b"\0" + hashlib.sha256(content).digest())
    # A checkpoint holds it: in another form no training would go on.
    assert pictures.labels_hash() == expected.hexdigest()[:16]
    assert _labelled(tmp_path, 2, 1).labels_hash() != expected.hexdigest()[:16]
