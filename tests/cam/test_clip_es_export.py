"""CLIP-ES through the export stage: the public code's maps in the store, and what it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from clip_helpers import NAMES, reference, write_openai_file
from PIL import Image

from wsss.cam.clip_es import min_max
from wsss.cam.config import ExportConfig
from wsss.cam.export import export_cams
from wsss.cam.methods.registry import METHODS
from wsss.data.index import ImageRecord, Index, write_index
from wsss.errors import UserError
from wsss.files import write_json
from wsss.maps.map_store import MapStore, map_size
from wsss.runtime.compute import Compute
from wsss.runtime.settings import to_dict

pytest.importorskip("transformers")
IMAGES = ("square", "wide")
ONE_VIEW = {"scales": (1.0,), "mirror": False, "precision": "float32"}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The reference's two pictures as a data set, and its CLIP."""
    folder = tmp_path_factory.mktemp("pictures")
    records = []
    for name in IMAGES:
        picture = reference()[f"{name}/image"]
        Image.fromarray(picture).save(folder / f"{name}.png")
        height, width = picture.shape[:2]
        records.append(
            ImageRecord(
                name=name,
                sets=("train",),
                tags=tuple(NAMES["tags"][name]),
                width=width,
                height=height,
                path=f"{name}.png",
            )
        )
    write_index(Index(tuple(NAMES["voc_names"]), tuple(records)), folder / "index.csv")
    write_openai_file(folder / "tiny.pt")
    return folder


def export(
    data: Path, output: Path, settings: dict[str, Any], **export_settings: Any
) -> dict[str, np.ndarray]:
    chosen = METHODS.parse(
        {"method": "clip-es", "clip": {"weights": "tiny"}, **settings}, where="cam"
    )
    write_json(output.with_suffix(".json"), to_dict(chosen))
    export_cams(
        config=ExportConfig(**{**ONE_VIEW, **export_settings}),
        index=data / "index.csv",
        root=data,
        output=output,
        compute=Compute(device="cpu", threads=1, workers=0),
        cam=output.with_suffix(".json"),
        weights_file=data / "tiny.pt",
    )
    with MapStore(output) as store:
        return {name: store.read(name).maps for name in store.names}


PUBLISHED = {"preset": "published", "background_words": NAMES["background"]}


def test_the_store_holds_the_public_codes_maps(data: Path, tmp_path: Path) -> None:
    maps = export(data, tmp_path / "cams.h5", PUBLISHED)
    with MapStore(tmp_path / "cams.h5") as store:
        tags = {name: [store.classes[i] for i in store.read(name).class_indices] for name in IMAGES}
        assert store.attributes["model"] == "tiny.pt"
    for name in IMAGES:
        # The store lists a picture's classes in its own order.
        order = [NAMES["tags"][name].index(tag) for tag in tags[name]]
        refined = min_max(torch.from_numpy(reference()[f"{name}/refined"][order]))
        size = map_size(*reference()[f"{name}/image"].shape[:2])
        wanted = F.interpolate(refined[None], size=size, mode="bilinear", align_corners=False)[0]
        # Kept as float16.
        assert np.abs(maps[name] - wanted.numpy()).max() < 1e-3


def test_several_views_are_summed_and_brought_to_one(data: Path, tmp_path: Path) -> None:
    one = export(data, tmp_path / "one.h5", PUBLISHED)
    two = export(data, tmp_path / "two.h5", PUBLISHED, scales=(1.0, 1.5), mirror=True)
    for name in IMAGES:
        assert two[name].shape == one[name].shape and two[name].max() == 1
        correlation = np.corrcoef(one[name].ravel(), two[name].ravel())[0, 1]
        assert 0.2 < correlation < 0.999


def test_a_class_that_is_a_background_word_is_said(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    export(data, tmp_path / "cams.h5", {"background_words": ["sky", "dog"]})
    assert "dog: a class, so no word for background" in capsys.readouterr().err


def test_what_is_refused(data: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="clip-es spreads its maps by itself"):
        export(data, tmp_path / "a.h5", {}, refine="patch-attention")
    with pytest.raises(UserError, match=r"cam\.attention_layers is 13"):
        export(data, tmp_path / "a.h5", {"attention_layers": 13})
    with pytest.raises(UserError, match="which is no class of this data set"):
        export(data, tmp_path / "a.h5", {"prompts": {"birb": "x"}})
    assert not (tmp_path / "a.h5").exists()


def test_one_of_model_and_settings(data: Path, tmp_path: Path) -> None:
    write_json(tmp_path / "acr.json", {"method": "cam"})
    files = {"index": data / "index.csv", "root": data, "output": tmp_path / "a.h5"}
    compute = Compute(device="cpu", threads=1, workers=0)
    config = ExportConfig(**ONE_VIEW)
    with pytest.raises(UserError, match="neither a trained model nor settings"):
        export_cams(config=config, compute=compute, **files)
    with pytest.raises(UserError, match="needs a trained model"):
        export_cams(config=config, compute=compute, cam=tmp_path / "acr.json", **files)
