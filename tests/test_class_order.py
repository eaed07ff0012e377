"""The classes of a file in another order are other classes: label 1 would mean another thing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from wsss.cam import clustering, erasing, export
from wsss.cam.config import ExportConfig
from wsss.cam.lpcam_config import LpcamConfig
from wsss.data.images import write_label
from wsss.data.index import ImageRecord, Index, write_index, write_masks
from wsss.errors import UserError
from wsss.evaluation.config import EvaluationConfig
from wsss.evaluation.scoring import score_maps
from wsss.figures import reconstruction
from wsss.irn.config import LabelsConfig, PseudoLabelsConfig
from wsss.irn.crf_label_config import CrfLabelsSettings
from wsss.irn.label_stage import make_labels
from wsss.irn.labels import mine_labels
from wsss.maps.map_store import MapStore, MapStoreWriter
from wsss.runtime.compute import InferenceCompute
from wsss.segmentation import prediction
from wsss.segmentation.config import PredictionConfig, SelfLabelsConfig
from wsss.segmentation.self_labels import make_self_labels

CLASSES, OTHERS = ("red", "blue"), ("blue", "red")


def write_store(path: Path, classes: tuple[str, ...], name: str = "a") -> Path:
    with MapStoreWriter(path, classes=classes, attributes={}) as store:
        store.add(name, (0,), np.ones((1, 4, 5)), (16, 20))
    return path


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A picture, its index, and maps and models of its classes in another order."""
    Image.new("RGB", (20, 16)).save(tmp_path / "a.png")
    write_label(tmp_path / "mask.png", np.ones((16, 20), np.uint8))
    write_masks({"a": "mask.png"}, tmp_path / "masks.csv")
    record = ImageRecord("a", ("train", "val"), ("red",), 20, 16, "a.png")
    write_index(Index(CLASSES, (record,)), tmp_path / "index.csv")
    write_store(tmp_path / "cams.h5", OTHERS)
    model = SimpleNamespace(
        load=lambda path: SimpleNamespace(classes=OTHERS, network=None),
        classes=lambda path: OTHERS,
    )
    monkeypatch.setattr(prediction, "SEGMENTATION", model)
    for module in (export, clustering, erasing, reconstruction):
        monkeypatch.setattr(module, "CLASSIFIER", model)
    return tmp_path


COMPUTE = InferenceCompute(device="cpu", threads=1, workers=0)


def scored(folder: Path) -> None:
    score_maps(
        config=EvaluationConfig(),
        maps=folder / "cams.h5",
        index=folder / "index.csv",
        masks=folder / "masks.csv",
        root=folder,
        output=folder / "out",
        curve=folder / "out.curve",
        plot=folder / "out.png",
        run="mine",
        stage="cam",
        split="train",
        background=0.3,
    )


def from_model(make: Callable[..., None], config: object) -> Callable[[Path], None]:
    def start(folder: Path) -> None:
        make(
            config=config,
            model=folder / "model",
            index=folder / "index.csv",
            root=folder,
            output=folder / "out",
            compute=COMPUTE,
        )

    return start


def pseudo_labels(config: PseudoLabelsConfig | CrfLabelsSettings) -> Callable[[Path], None]:
    def start(folder: Path) -> None:
        make_labels(
            config=config,
            cams=folder / "cams.h5",
            model=folder / "model",
            index=folder / "index.csv",
            root=folder,
            output=folder / "out",
            maps=folder / "out.h5",
            compute=COMPUTE,
        )

    return start


def mined(folder: Path) -> None:
    mine_labels(
        config=LabelsConfig(foreground_threshold=0.3, background_threshold=0.05),
        cams=folder / "cams.h5",
        index=folder / "index.csv",
        root=folder,
        output=folder / "out",
    )


def reconstructed(folder: Path) -> None:
    reconstruction.write_reconstructions(
        model=folder / "model",
        reconstructor=folder / "model",
        index=folder / "index.csv",
        root=folder,
        output=folder / "out",
        split="train",
        compute=COMPUTE,
    )


def merged(folder: Path) -> None:
    MapStore([folder / "cams.h5", write_store(folder / "more.h5", CLASSES, "b")])


STAGES: dict[str, Callable[[Path], None]] = {
    "score maps": scored,
    "prediction": from_model(prediction.predict_split, PredictionConfig()),
    "self-labels": from_model(make_self_labels, SelfLabelsConfig()),
    "export": from_model(export.export_cams, ExportConfig()),
    "lpcam": from_model(clustering.make_clusters, LpcamConfig()),
    "labels": mined,
    "pseudo-labels": pseudo_labels(PseudoLabelsConfig(background=0.25)),
    "pseudo-labels by CRF": pseudo_labels(CrfLabelsSettings()),
    "a frozen classifier": lambda folder: erasing.read_anchor(folder / "model", CLASSES),
    "reconstructions": reconstructed,
    "shards": merged,
}


@pytest.mark.parametrize("stage", STAGES)
def test_another_order_is_refused(stage: str, folder: Path) -> None:
    with pytest.raises(UserError) as caught:
        STAGES[stage](folder)
    assert "class" in caught.value.found
    if stage != "shards":
        assert "red, blue" in caught.value.expected
    assert not (folder / "out").exists()
