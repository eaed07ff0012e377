"""Maps that are to be enlarged four times, and not stretched to the picture, wherever they go."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from crf_recorder import recorded_crf
from PIL import Image

from wsss.api.cam_store import CamStore
from wsss.data.images import read_label, write_label
from wsss.data.index import ImageRecord, Index, write_index, write_masks
from wsss.evaluation.config import EvaluationConfig
from wsss.evaluation.scoring import score_maps
from wsss.evaluation.tables import read_rows
from wsss.evaluation.thresholds import count_images
from wsss.figures.panels import cam_tiles
from wsss.irn.config import LabelsConfig
from wsss.irn.crf_label_config import CrfLabelsSettings
from wsss.irn.crf_labels import make_crf_labels
from wsss.irn.labels import mine_labels
from wsss.maps.map_store import MapStore, MapStoreWriter
from wsss.maps.shard_files import merge_shards, record_shard
from wsss.maps.shards import Shard
from wsss.runtime.compute import InferenceCompute

# A picture whose sides are no multiples of 4, so that the two differ.
HEIGHT, WIDTH = 21, 30
CLASSES = ("cat", "dog")
MAPS = np.random.default_rng(3).random((2, 6, 8)).astype(np.float16)
BACKGROUND = 0.6


def enlarged(maps: np.ndarray = MAPS) -> np.ndarray:
    """(2, H, W): four times as large, then cut off."""
    batch = torch.from_numpy(maps.astype(np.float32))[None]
    full = torch.nn.functional.interpolate(batch, scale_factor=4.0, mode="bilinear")
    return full[0, :, :HEIGHT, :WIDTH].numpy()


def labels(background: float = BACKGROUND) -> np.ndarray:
    scores = np.concatenate([np.full((1, HEIGHT, WIDTH), background, np.float32), enlarged()])
    return scores.argmax(axis=0).astype(np.uint8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A picture, maps that are to be enlarged four times, and what they then say as its mask."""
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)).save(
        tmp_path / "a.png"
    )
    with MapStoreWriter(
        tmp_path / "maps.h5", classes=CLASSES, attributes={}, upsampling="times4"
    ) as store:
        store.add("a", (0, 1), MAPS, (HEIGHT, WIDTH))
    record = ImageRecord("a", ("train",), CLASSES, WIDTH, HEIGHT, "a.png")
    write_index(Index(CLASSES, (record,)), tmp_path / "index.csv")
    write_label(tmp_path / "mask.png", labels())
    write_masks({"a": "mask.png"}, tmp_path / "masks.csv")
    return tmp_path


def test_stretching_would_be_noticed(folder: Path) -> None:
    with MapStore(folder / "maps.h5") as store:
        assert store.upsampling == "times4"
    batch = torch.from_numpy(MAPS.astype(np.float32))[None]
    other = torch.nn.functional.interpolate(batch, size=(HEIGHT, WIDTH), mode="bilinear")[0]
    scores = np.concatenate([np.full((1, HEIGHT, WIDTH), BACKGROUND), other.numpy()])
    assert (scores.argmax(axis=0) != labels()).mean() > 0.02


def scored(folder: Path) -> None:
    score_maps(
        config=EvaluationConfig(),
        maps=folder / "maps.h5",
        index=folder / "index.csv",
        masks=folder / "masks.csv",
        root=folder,
        output=folder / "scores.csv",
        curve=folder / "curve.csv",
        plot=folder / "curve.png",
        run="mine",
        stage="pseudo_label",
        split="train",
        background=BACKGROUND,
    )
    mean = next(row for row in read_rows(folder / "scores.csv") if row["class"] == "mean")
    assert float(mean["iou"]) == 1


def counted(folder: Path) -> None:
    counts = count_images(folder / "maps.h5", {"a": folder / "mask.png"}, 2, [BACKGROUND])
    assert counts.mean_iou(np.ones((1, 1)))[0].tolist() == [1]


def read(folder: Path) -> None:
    with CamStore(folder / "maps.h5") as store:
        np.testing.assert_allclose(store["a"].maps, enlarged(), atol=1e-6)


def drawn(folder: Path) -> None:
    picture = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    with MapStoreWriter(folder / "large.h5", classes=CLASSES, attributes={}) as large:
        large.add("a", (0, 1), enlarged(), (HEIGHT, WIDTH))
    tiles = []
    for name in ("maps.h5", "large.h5"):
        with MapStore(folder / name) as store:
            tiles.append(cam_tiles(picture, store, "a", "CAM"))
    for one, other in zip(*tiles, strict=True):
        assert np.abs(one.astype(int) - other.astype(int)).max() <= 3  # float16


def mined(folder: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        recorded_crf(patch)
        mine_labels(
            config=LabelsConfig(foreground_threshold=BACKGROUND, background_threshold=BACKGROUND),
            cams=folder / "maps.h5",
            index=folder / "index.csv",
            root=folder,
            output=folder / "labels",
            workers=0,
        )
    assert (read_label(folder / "labels" / "a.png") == labels()).all()


def refined(folder: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        recorded_crf(patch)
        make_crf_labels(
            config=CrfLabelsSettings(background=BACKGROUND, confidence=0.0),
            cams=folder / "maps.h5",
            index=folder / "index.csv",
            root=folder,
            output=folder / "labels",
            maps=folder / "shares.h5",
            compute=InferenceCompute(device="cpu", threads=1, workers=0),
        )
    assert (read_label(folder / "labels" / "a.png") == labels()).mean() > 0.998


def merged(folder: Path) -> None:
    part = folder / "1-of-1"
    part.mkdir()
    (folder / "maps.h5").rename(part / "maps.h5")
    record_shard(part, Shard(1, 1), {})
    merge_shards([part], {"maps.h5": folder / "merged.h5"}, {})
    with MapStore(folder / "merged.h5") as store:
        assert store.upsampling == "times4"


@pytest.mark.parametrize("use", [scored, counted, read, drawn, mined, refined, merged])
def test_maps_are_enlarged_as_their_store_says(use: Callable[[Path], None], folder: Path) -> None:
    use(folder)
