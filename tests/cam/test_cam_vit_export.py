"""Exported CAMs of transformers, and refinement of any CAMs by their patch attention."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from cam_settings import as_method
from torch import Tensor
from vit_helpers import CPU, TINY, train, write_data

from wsss.cam.config import ExportConfig
from wsss.cam.export import export_cams
from wsss.cam.inference import view_size
from wsss.cam.model_file import CLASSIFIER
from wsss.cam.source import CamSource
from wsss.data.images import read_image
from wsss.data.index import read_index
from wsss.data.transforms import normalise
from wsss.errors import UserError
from wsss.maps.map_store import MapStore
from wsss.models.vit_classifier import TransformerClassifier
from wsss.project.config import resolve
from wsss.runtime.compute import Compute


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def models(data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {
        name: train(data, tmp_path_factory.mktemp(name), as_method(TINY, name))
        for name in ("mct", "acr-vit", "cam")
    }


def export(
    data: Path, model: Path, output: Path, config: ExportConfig, lender: Path | None = None
) -> dict[str, np.ndarray]:
    export_cams(
        config=config,
        model=model,
        index=data / "index.csv",
        root=data,
        output=output,
        compute=Compute(device="cpu", threads=1, workers=0),
        attention_model=lender,
    )
    with MapStore(output) as store:
        return {name: store.read(name).maps for name in store.names}


def hand_made(
    model: Path, lender: Path | None, data: Path, *, scales: tuple[float, ...], refine: bool
) -> dict[str, np.ndarray]:
    """Every view and its mirror image by itself, all classes, as the definition reads."""
    trained = CLASSIFIER.load(model)
    network = trained.network
    attentive = network if lender is None else CLASSIFIER.load(lender).network
    index = read_index(data / "index.csv").subset("train")
    maps = {}
    for record in index.records:
        picture = torch.from_numpy(read_image(data / record.path)).permute(2, 0, 1)[None]
        size = ((record.height - 1) // 4 + 1, (record.width - 1) // 4 + 1)
        total: Tensor = torch.zeros(len(index.classes), *size)

        def view(of: Any, scale: float, flip: bool, picture: Tensor = picture) -> Tensor:
            unit = of.size_multiple
            sides = [max(1, round(s * scale / unit)) * unit for s in picture.shape[-2:]]
            resized = (
                F.interpolate(picture.float(), size=sides, mode="bicubic", antialias=True)
                .round()
                .clamp(0, 255)
            )
            x = normalise(resized / 255, of.normalisation)
            return x.flip(-1) if flip else x

        for scale in scales:
            for flip in (False, True):
                with torch.no_grad():
                    cam = network(view(network, scale, flip))[1]
                    if refine:
                        x = view(attentive, scale, flip)
                        grid = (x.shape[-2] // 16, x.shape[-1] // 16)
                        attention = attentive.network(x, attention="all").patch_attention[0]
                        cam = F.interpolate(cam, size=grid, mode="bilinear").relu()[0]
                        spread = torch.zeros_like(cam).flatten(1)
                        for query in range(spread.shape[1]):
                            for key in range(spread.shape[1]):
                                spread[:, query] += attention[query, key] * cam.flatten(1)[:, key]
                        cam = spread.reshape(1, -1, *grid)
                cam = F.interpolate(cam, size=size, mode="bilinear").relu()[0]
                total += cam.flip(-1) if flip else cam
        wanted = total[list(index.class_indices(record))].double().numpy()
        low, high = (f(axis=(1, 2), keepdims=True) for f in (wanted.min, wanted.max))
        e = 1e-8 if isinstance(network, TransformerClassifier) else 1e-5
        maps[record.name] = np.maximum(wanted - low - e, 0) / (high - low + e)
    return maps


@pytest.mark.setting("export.refine")
@pytest.mark.parametrize(
    ("name", "lender", "refine"),
    [
        ("mct", None, "none"),
        ("acr-vit", None, "patch-attention"),
        ("cam", "mct", "patch-attention"),
        ("mct", "acr-vit", "patch-attention"),
    ],
)
def test_export_equals_the_hand_made_computation(data, models, tmp_path, name, lender, refine):
    config = ExportConfig(scales=(1.0, 1.5), precision="float32", refine=refine, refine_from=lender)
    lent = None if lender is None else models[lender]
    ours = export(data, models[name], tmp_path / "cams.h5", config, lent)
    wanted = hand_made(models[name], lent, data, scales=(1.0, 1.5), refine=refine != "none")
    assert list(ours) == list(wanted)
    for image, maps in ours.items():
        assert maps.max() > 0.9
        # Half precision in the store, whole grey levels in the views.
        np.testing.assert_allclose(maps, wanted[image], atol=0.02)


def test_refinement_changes_the_store_and_is_noted_there(data, models, tmp_path):
    plain = export(data, models["mct"], tmp_path / "a.h5", ExportConfig(scales=(1.0,)))
    config = ExportConfig(scales=(1.0,), refine="patch-attention")
    refined = export(data, models["mct"], tmp_path / "b.h5", config)
    assert max(np.abs(plain[name] - refined[name]).max() for name in plain) > 0.01
    with MapStore(tmp_path / "b.h5") as store:
        assert store.attributes["refine"] == "patch-attention"
        assert store.attributes["attention_model"] == CLASSIFIER.load(models["mct"]).identity
    # Without refinement the name of a run means nothing.
    unused = ExportConfig(scales=(1.0,), refine_from="other")
    export(data, models["mct"], tmp_path / "c.h5", unused)


@pytest.mark.setting("export.refine_from")
@pytest.mark.parametrize(
    ("name", "refine_from", "lender", "words"),
    [
        ("cam", None, None, "name a run with method mct or acr-vit in export.refine_from"),
        ("cam", "voc-vit", None, "--attention-model results/voc-vit/cam/model.safetensors"),
        ("cam", "other", "cam", "has no attention between patches"),
    ],
)
def test_refinement_without_a_transformer(data, models, tmp_path, name, refine_from, lender, words):
    config = ExportConfig(scales=(1.0,), refine="patch-attention", refine_from=refine_from)
    with pytest.raises(UserError) as caught:
        export(data, models[name], tmp_path / "cams.h5", config, models[lender] if lender else None)
    assert words in str(caught.value)
    assert not (tmp_path / "cams.h5").exists()


@pytest.mark.setting("export.refine_from")
def test_the_configuration_says_so_before_any_training():
    def runs(lender: str | None, **b: Any) -> None:
        refined = {"refine": "patch-attention", "refine_from": lender}
        header = {"root": "own", "index": {"format": "folder"}}
        first = {**header, "cam": {"method": "cam"}, "export": refined}
        resolve({"roots": {"own": "x"}, "runs": {"a": first, "b": {**header, "cam": b}}})

    schedule = {"vit": {"learning_rate_at_512": 0.1}}
    runs("b", method="mct", **schedule)
    with pytest.raises(UserError, match="this run, 'cam', has no attention") as caught:
        runs(None, method="mct", **schedule)
    assert caught.value.where == "runs.a.export.refine_from"
    with pytest.raises(UserError, match="unknown run 'c'"):
        runs("c", method="mct", **schedule)
    with pytest.raises(UserError, match=r"run 'b', 'cam', has no attention(.|\n)*acr-vit or mct"):
        runs("b", method="cam")


def test_views_are_resized_to_whole_patches():
    assert view_size((375, 500), 1.0, 16) == (368, 496)
    assert view_size((375, 500), 0.5, 16) == (192, 256)
    assert view_size((5, 24), 1.0, 16) == (16, 32)
    assert view_size((375, 500), 1.5) == (562, 750)


def test_announced_memory_is_that_of_the_largest_view(models):
    classifier = CLASSIFIER.load(models["mct"]).network
    source = CamSource(classifier, classifier, mirror=True, device=CPU)
    patches = 23 * 31
    assert source.attention_bytes((375, 500), (0.5, 1.0)) == 4 * 4 * patches**2
    state = classifier.state_dict().values()
    assert source.weight_bytes() == sum(tensor.numel() * tensor.itemsize for tensor in state)
    plain = CamSource(classifier, None, mirror=True, device=CPU)
    assert plain.attention_bytes((375, 500), (1.0,)) == 0
