"""A randomly filled vision transformer on real photographs, from pictures to label maps."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from wsss.data.build import build_index, build_masks
from wsss.data.formats.registry import FORMATS
from wsss.data.images import read_image, read_label
from wsss.data.index import Index, write_index, write_masks
from wsss.models.config import BackboneConfig
from wsss.models.heads.tokens_config import PyramidSettings
from wsss.runtime.compute import FeatureCompute
from wsss.segmentation.config import PredictionConfig, SegmentationConfig
from wsss.segmentation.inference import class_probabilities, segmenter, views_of
from wsss.segmentation.model_file import SEGMENTATION
from wsss.segmentation.prediction import predict_split
from wsss.segmentation.training import train_segmentation

TRAIN, VAL = 8, 2
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
    predict_split(
        config=PredictionConfig(scales=(1.0,), mirror=False, crf=False, window_px=320),
        model=tmp_path / "model.safetensors",
        output=tmp_path / "labels",
        compute=COMPUTE,
        **lists,
    )
    records = index.subset("val").records
    for record in records:
        label = read_label(tmp_path / "labels" / f"{record.name}.png")
        assert label.shape == (record.height, record.width)
        assert int(label.max()) <= len(index.classes)
    # Of one larger than a window: seen whole, in windows, reduced.
    record = next(r for r in records if max(r.height, r.width) > 320)
    device = torch.device("cpu")
    found = []
    for window_px, limit_px in ((None, None), (320, None), (None, 320)):
        network = SEGMENTATION.load(tmp_path / "model.safetensors").network
        segments = segmenter(network, precision="float32", device=device, window_px=window_px)
        views = views_of(read_image(voc_root / record.path), (1.0,), limit_px)
        found.append(class_probabilities(segments, views, mirror=False))
    whole, *others = found
    assert whole.shape == (1 + len(index.classes), record.height, record.width)
    assert torch.allclose(whole.sum(0), torch.ones(()), atol=1e-4)
    for other in others:
        assert (whole - other).abs().max() > 1e-4 and (whole - other).abs().mean() < 0.02
