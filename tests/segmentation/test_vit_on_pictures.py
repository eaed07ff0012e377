"""A randomly filled vision transformer on real photographs, from pictures to label maps."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from wsss.data.build import build_index, build_masks
from wsss.data.formats.registry import FORMATS
from wsss.data.images import read_label
from wsss.data.index import Index, write_index, write_masks
from wsss.models.config import BackboneConfig
from wsss.models.heads.tokens_config import PyramidSettings
from wsss.runtime.compute import FeatureCompute
from wsss.segmentation.config import PredictionConfig, SegmentationConfig
from wsss.segmentation.prediction import predict_split
from wsss.segmentation.training import train_segmentation

TRAIN, VAL = 8, 2
WAYS: dict[str, dict[str, int]] = {
    "whole": {},
    "windows": {"window_px": 320},
    "small": {"long_side_limit_px": 224},
}
COMPUTE = FeatureCompute(device="cpu", threads=2, workers=0, feature_cache_gb=1)


def write_lists(folder: Path, root: Path) -> Index:
    """Write index.csv and masks.csv of a few pictures with masks."""
    settings = FORMATS.parse({"format": "voc"}, where="index")
    whole = build_index(settings, root)
    records = [
        record
        for name, count in (("train", TRAIN), ("val", VAL))
        for record in [r for r in whole.records if name in r.sets][:count]
    ]
    index = Index(whole.classes, tuple(sorted(records, key=lambda record: record.name)))
    write_index(index, folder / "index.csv")
    write_masks(build_masks(settings, root, index), folder / "masks.csv")
    return index


@pytest.mark.slow
def test_photographs_to_labels(
    voc_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WSSS_CACHE", str(tmp_path / "cache"))
    index = write_lists(tmp_path, voc_root)
    lists = {"index": tmp_path / "index.csv", "root": voc_root}
    config = SegmentationConfig(
        labels="ground_truth",
        backbone=BackboneConfig(
            name="vit_tiny_patch16_224",
            weights="none",
            output_stride=None,
            layers=(5, 11),
            frozen=True,
        ),
        head=PyramidSettings(channels=8),
        epochs=6,
        batch_size=4,
        crop_px=160,
        augment=False,
        learning_rate=0.01,
    )
    train_segmentation(
        config=config,
        masks=tmp_path / "masks.csv",
        output=tmp_path / "model.safetensors",
        work_dir=tmp_path / "work",
        compute=COMPUTE,
        **lists,
    )
    lines = (tmp_path / "work" / "metrics.jsonl").read_text().splitlines()
    # Below what knowing nothing of 21 labels gives.
    assert json.loads(lines[-1])["loss"] < 0.8 * math.log(1 + len(index.classes))
    assert len(list((tmp_path / "cache" / "features").rglob("*.safetensors"))) == TRAIN
    for name, how in WAYS.items():
        predict_split(
            config=PredictionConfig(scales=(1.0,), mirror=False, crf=False, **how),
            model=tmp_path / "model.safetensors",
            output=tmp_path / name,
            compute=COMPUTE,
            **lists,
        )
    labels: list[list[np.ndarray]] = []
    for record in index.subset("val").records:
        found = [read_label(tmp_path / name / f"{record.name}.png") for name in WAYS]
        assert all(label.shape == (record.height, record.width) for label in found)
        assert all(int(label.max()) <= len(index.classes) for label in found)
        labels.append([label.ravel() for label in found])
    # Larger than a window, so that the three see them otherwise, and agree on most.
    whole, *others = (np.concatenate(way) for way in zip(*labels, strict=True))
    assert all(0.5 < (whole == other).mean() < 1 for other in others)
