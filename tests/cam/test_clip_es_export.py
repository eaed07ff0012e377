"""CLIP-ES through the export stage: the public code's maps in the store, and what it refuses."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from clip_helpers import NAMES, reference, write_openai_file
from hub_helpers import cached_repository
from PIL import Image

from wsss.cam.clip_es import min_max
from wsss.cam.clip_es_maps import ClipEs, ClipEsOptions, network_input, network_size
from wsss.cam.clip_words import BACKGROUND_WORDS, TEMPLATE
from wsss.cam.config import ExportConfig
from wsss.cam.export import export_cams
from wsss.cam.methods.registry import METHODS
from wsss.data.index import ImageRecord, Index, write_index
from wsss.errors import UserError
from wsss.files import write_json
from wsss.maps.map_store import MapStore, map_size
from wsss.models.clip import Clip
from wsss.models.clip_files import load_clip
from wsss.project.config import resolve
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
    data: Path,
    output: Path,
    settings: dict[str, Any],
    *,
    weights: str | None = "tiny.pt",
    **export_settings: Any,
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
        weights_file=None if weights is None else data / weights,
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


WORDS = {"person": "person with clothes,people,human", "bird": "bird avian", "chair": "chair seat"}


def by_hand(
    clip: Clip,
    *,
    words: dict[str, str] = WORDS,
    background: Sequence[str] = BACKGROUND_WORDS,
    template: str = TEMPLATE,
    scales: tuple[float, ...] = (1.0,),
    mirror: bool = False,
    **options: Any,
) -> dict[str, np.ndarray]:
    """The maps of both pictures, each view by itself."""
    classes = NAMES["voc_names"]
    method = ClipEs(
        clip,
        class_texts=clip.embed_texts([template.replace("{}", words.get(c, c)) for c in classes]),
        background_texts=clip.embed_texts([template.replace("{}", word) for word in background]),
        options=ClipEsOptions(**options),
    )
    found = {}
    for name in IMAGES:
        picture = reference()[f"{name}/image"]
        height, width = picture.shape[:2]
        indices = sorted(classes.index(tag) for tag in NAMES["tags"][name])
        total = torch.zeros(len(indices), *map_size(height, width))
        for scale in scales:
            sides = (round(height * scale), round(width * scale))
            view = network_input(
                picture, network_size(sides, 16, method.options.long_side_limit_px)
            )
            for flipped in (False, True)[: 1 + mirror]:
                maps = method.maps(view.flip(-1) if flipped else view, indices)
                maps = maps.flip(-1) if flipped else maps
                total += F.interpolate(maps[None], total.shape[1:], mode="bilinear")[0]
        views = len(scales) * (1 + mirror)
        found[name] = (total if views == 1 else min_max(total)).numpy()
    return found


def agree(found: dict[str, np.ndarray], wanted: dict[str, np.ndarray]) -> bool:
    # Kept as float16.
    return all(np.abs(found[name] - wanted[name]).max() < 1e-3 for name in IMAGES)


@pytest.fixture(scope="module")
def clip(data: Path) -> Clip:
    return load_clip(data / "tiny.pt", device=torch.device("cpu"))[0]


SETTINGS: list[Any] = [
    pytest.param(
        {"attention_layers": 3}, {"attention_layers": 3},
        marks=pytest.mark.setting("cam.attention_layers"),
    ),
    pytest.param(
        {"box_threshold": 0.8}, {"box_threshold": 0.8},
        marks=pytest.mark.setting("cam.box_threshold"),
    ),
    pytest.param({"spread": False}, {"refine": False}, marks=pytest.mark.setting("cam.spread")),
    pytest.param(
        {"preset": "published"}, {"published": True}, marks=pytest.mark.setting("cam.preset")
    ),
    pytest.param(
        {"long_side_limit_px": 80}, {"long_side_limit_px": 80},
        marks=pytest.mark.setting("cam.long_side_limit_px"),
    ),
    pytest.param(
        {"template": "{} in the rain"}, {"template": "{} in the rain"},
        marks=pytest.mark.setting("cam.template"),
    ),
    pytest.param(
        {"prompts": {"dog": "small hound", "bird": "owl"}},
        {"words": {**WORDS, "dog": "small hound", "bird": "owl"}},
        marks=pytest.mark.setting("cam.prompts"),
    ),
    pytest.param(
        {"background_words": ["sky", "grass", "dog"]}, {"background": ["sky", "grass"]},
        marks=pytest.mark.setting("cam.background_words"),
    ),
]  # fmt: skip


@pytest.mark.parametrize(("settings", "changes"), SETTINGS)
def test_maps_follow_the_settings_as_by_hand(
    data: Path, clip: Clip, tmp_path: Path, settings: dict[str, Any], changes: dict[str, Any]
) -> None:
    found = export(data, tmp_path / "cams.h5", settings)
    assert agree(found, by_hand(clip, **changes))
    assert not agree(found, by_hand(clip))


@pytest.mark.setting("export.scales", "export.mirror")
@pytest.mark.parametrize(
    ("scales", "mirror"), [((1.0,), False), ((0.5, 1.5), False), ((1.5,), True)]
)
def test_views_are_summed_as_by_hand(
    data: Path, clip: Clip, tmp_path: Path, scales: tuple[float, ...], mirror: bool
) -> None:
    found = export(data, tmp_path / "cams.h5", {}, scales=scales, mirror=mirror)
    assert agree(found, by_hand(clip, scales=scales, mirror=mirror))


@pytest.mark.setting("cam.clip.name", "cam.clip.revision")
def test_a_name_and_a_revision_are_those_that_are_loaded(
    data: Path, clip: Clip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    newest = cached_repository(monkeypatch, tmp_path, "tiny/clip")
    other = newest.parent / ("f" * 40)
    other.mkdir()
    (newest.parent.parent / "refs" / "older").write_text(other.name)
    weight = clip.model.visual_projection.weight
    kept = weight.detach().clone()
    wanted = {}
    for folder, sign in ((newest, 1.0), (other, -1.0)):
        with torch.no_grad():
            weight.copy_(sign * kept)
        clip.model.save_pretrained(folder)
        clip.tokenizer.save_pretrained(folder)
        wanted[folder.name] = by_hand(clip)
    with torch.no_grad():
        weight.copy_(kept)
    for revision, folder in ((None, newest), ("older", other)):
        named = {"name": "tiny/clip", "weights": "hub", "revision": revision}
        found = export(data, tmp_path / "cams.h5", {"clip": named}, weights=None)
        assert agree(found, wanted[folder.name])
        with MapStore(tmp_path / "cams.h5") as store:
            assert store.attributes["model_revision"] == folder.name
    assert not agree(wanted[newest.name], wanted[other.name])


@pytest.mark.setting("cam.clip.weights")
def test_a_key_is_the_file_that_the_export_is_given(data: Path) -> None:
    run = {"root": "own", "index": {"format": "folder"}}
    clips: dict[str, dict[str, Any]] = {"by_key": {"weights": "tiny"}, "by_name": {}}
    runs = {k: {**run, "cam": {"method": "clip-es", "clip": v}} for k, v in clips.items()}
    weights = {"tiny": str(data / "tiny.pt")}
    config = resolve({"roots": {"own": "x"}, "weights": weights, "runs": runs})
    assert config.weights_files("by_key", "cam") == {"weights-file": data / "tiny.pt"}
    assert config.weights_files("by_name", "cam") == {}


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
