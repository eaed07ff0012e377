"""CAM training and export on tiny pictures: determinism, the naive form, errors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from cam_settings import cam_settings
from conftest import write_tiny_data
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor

from wsss.cam.config import ExportConfig
from wsss.cam.export import export_cams
from wsss.cam.model_file import CLASSIFIER
from wsss.cam.training import train_cam
from wsss.data.build import build_index
from wsss.data.formats.folder import FolderSettings
from wsss.data.images import read_image
from wsss.data.index import Index, read_index, write_index
from wsss.errors import UserError
from wsss.maps.map_store import MapStore
from wsss.runtime.compute import Compute
from wsss.runtime.settings import parse

TINY: dict[str, Any] = {
    "backbone": {"name": "test_efficientnet", "weights": "none", "output_stride": 16},
    "epochs": 1,
    "batch_size": 4,
    "crop_px": 48,
    "long_side_min_px": 48,
    "long_side_max_px": 64,
    "learning_rate": 0.001,
    "acr": {
        "decoder_depth": 3,
        "decoder_width": 4,
        "decode_px": 32,
        "feature_levels": [1, 2],
        "feature_channels": [4, 4],
        "grid_min": 4,
        "grid_max": 6,
    },
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("tiny")
    write_tiny_data(root)
    write_index(build_index(FolderSettings(), root), root / "index.csv")
    return root


def train(data: Path, folder: Path, *, workers: int = 0, **settings: Any) -> Path:
    output = folder / "model.safetensors"
    train_cam(
        config=cam_settings({**TINY, **settings}),
        index=data / "index.csv",
        root=data,
        output=output,
        work_dir=folder / "work",
        compute=Compute(device="cpu", threads=1, workers=workers),
    )
    return output


def export(data: Path, model: Path, output: Path, **settings: Any) -> None:
    export_cams(
        config=parse(
            ExportConfig, {"scales": [0.5, 1.0], "precision": "float32", **settings}, where="export"
        ),
        model=model,
        index=data / "index.csv",
        root=data,
        output=output,
        compute=Compute(device="cpu", threads=1, workers=1),
    )


@pytest.mark.setting("cam.seed")
@pytest.mark.parametrize("method", ["cam", "acr"])
def test_same_seed_same_bytes_whatever_the_workers(data: Path, tmp_path: Path, method: str) -> None:
    a, b, c = (
        train(data, tmp_path / name, method=method, workers=workers, seed=seed)
        for name, workers, seed in (("a", 0, 0), ("b", 2, 0), ("c", 0, 1))
    )
    assert a.read_bytes() == b.read_bytes()
    # The weights: the file names the seed, too.
    heads = [CLASSIFIER.load(path).network.class_weights for path in (a, c)]
    assert not torch.equal(*heads)
    assert not (tmp_path / "a" / "work" / "checkpoint.pt").exists()


def test_tensorboard_has_the_curves_and_pictures_of_the_stage(data: Path, tmp_path: Path) -> None:
    train(data, tmp_path, method="cam", epochs=2)
    events = EventAccumulator(str(tmp_path / "work" / "tensorboard")).Reload()
    index = read_index(data / "index.csv").training_set()
    tags_of = {f"cam/pictures/{record.name}": record.tags for record in index.records}
    shown = events.Tags()["images"]
    assert len(shown) == min(4, len(tags_of)) and set(shown) <= set(tags_of)
    for tag in shown:
        first, second = events.Images(tag)  # one an epoch
        # The crop, and a map for each tag, 256 px wide and 4 px apart, below a line of titles.
        width = 260 * (1 + len(tags_of[tag])) - 4
        assert (first.width, first.height) == (second.width, second.height) == (width, 276)
    assert {"cam/loss", "cam/lr"} <= set(events.Tags()["scalars"])


def test_training_opens_no_mask(data: Path, tmp_path: Path) -> None:
    with_masks = train(data, tmp_path / "a", method="acr").read_bytes()
    bare = tmp_path / "bare"
    (bare / "images").mkdir(parents=True)
    for path in (data / "images").iterdir():
        (bare / "images" / path.name).write_bytes(path.read_bytes())
    for name in ("index.csv", "classes.txt"):
        (bare / name).write_bytes((data / name).read_bytes())
    assert train(bare, tmp_path / "b", method="acr").read_bytes() == with_masks


def naive_cams(
    model: Path, root: Path, index: Index, *, scales: tuple[float, ...], mirror: bool
) -> dict[str, np.ndarray]:
    """One view a pass, float64, every class at the stored size, as the definition reads."""
    trained = CLASSIFIER.load(model)
    network = trained.network.double().eval()
    mean, std = (
        torch.tensor(v, dtype=torch.float64).view(1, 3, 1, 1)
        for v in (trained.network.normalisation.mean, trained.network.normalisation.std)
    )
    result = {}
    for record in index.records:
        image = Image.fromarray(read_image(root / record.path))
        size = ((record.height - 1) // 4 + 1, (record.width - 1) // 4 + 1)
        total: Tensor = torch.zeros(1, len(index.classes), *size, dtype=torch.float64)
        for scale in scales:
            view = image.resize(
                (round(record.width * scale), round(record.height * scale)),
                Image.Resampling.BICUBIC,
            )
            x = torch.from_numpy(np.array(view)).permute(2, 0, 1)[None].double() / 255
            x = (x - mean) / std
            for flipped in (False, True)[: 1 + mirror]:
                with torch.no_grad():
                    cam = network(x.flip(-1) if flipped else x)[1]
                cam = F.relu(F.interpolate(cam, size=size, mode="bilinear"))
                total += cam.flip(-1) if flipped else cam
        maps = total[0, list(index.class_indices(record))].numpy()
        low, high = (f(axis=(1, 2), keepdims=True) for f in (maps.min, maps.max))
        result[record.name] = np.maximum(maps - low - 1e-5, 0) / (high - low + 1e-5)
    return result


@pytest.mark.setting("export.scales", "export.mirror")
@pytest.mark.parametrize(("scales", "mirror"), [((0.5, 1.0), True), ((0.75, 1.5), False)])
def test_export_equals_the_naive_form(
    data: Path, tmp_path: Path, scales: tuple[float, ...], mirror: bool
) -> None:
    model = train(data, tmp_path, method="cam")
    export(data, model, tmp_path / "cams.h5", scales=list(scales), mirror=mirror)
    index = read_index(data / "index.csv").subset("train")
    wanted = naive_cams(model, data, index, scales=scales, mirror=mirror)
    with MapStore(tmp_path / "cams.h5") as store:
        assert store.names == [record.name for record in index.records]
        for record in index.records:
            stored = store.read(record.name)
            assert stored.class_indices.tolist() == list(index.class_indices(record))
            assert stored.size == (record.height, record.width)
            # Resizing rounds to whole grey levels in both forms, but not always to the same one.
            np.testing.assert_allclose(stored.maps, wanted[record.name], atol=0.03)
            assert np.abs(stored.maps - wanted[record.name]).mean() < 0.003


@pytest.mark.setting("export.precision")
def test_maps_are_computed_in_the_precision_that_is_asked_for(data: Path, tmp_path: Path) -> None:
    model = train(data, tmp_path, method="cam")
    index = read_index(data / "index.csv").subset("train")
    wanted = naive_cams(model, data, index, scales=(1.0,), mirror=False)
    errors = {}
    for precision in ("float32", "bfloat16"):
        output = tmp_path / f"{precision}.h5"
        export(data, model, output, scales=[1.0], mirror=False, precision=precision)
        with MapStore(output) as store:
            # Nothing is resized here: only the arithmetic differs, and the store's float16.
            errors[precision] = max(
                float(np.abs(store.read(name).maps - maps).mean()) for name, maps in wanted.items()
            )
    assert errors["float32"] < 3e-4 < 1e-3 < errors["bfloat16"] < 0.1


def test_export_is_repeatable(data: Path, tmp_path: Path) -> None:
    model = train(data, tmp_path, method="cam")
    for name in ("a.h5", "b.h5"):
        export(data, model, tmp_path / name)
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()


def test_a_model_of_other_classes_is_refused(data: Path, tmp_path: Path) -> None:
    model = train(data, tmp_path, method="cam")
    index = read_index(data / "index.csv")
    other = tmp_path / "other"
    other.mkdir()
    renamed = Index(("blue", "crimson"), ())
    write_index(renamed, other / "index.csv")
    assert index.classes == ("blue", "red")
    with pytest.raises(UserError, match="other classes"):
        export(other, model, tmp_path / "cams.h5")


def test_an_unknown_method_is_named(data: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="unknown CAM method 'adversarial'"):
        train(data, tmp_path, method="adversarial")


def test_an_image_that_turns_unreadable_is_named(data: Path, tmp_path: Path) -> None:
    model = train(data, tmp_path, method="cam")
    broken = tmp_path / "broken"
    (broken / "images").mkdir(parents=True)
    for path in (data / "images").iterdir():
        (broken / "images" / path.name).write_bytes(path.read_bytes())
    for name in ("index.csv", "classes.txt"):
        (broken / name).write_bytes((data / name).read_bytes())
    (broken / "images" / "image_03.png").write_bytes(b"gone")
    with pytest.raises(UserError, match="image_03"):
        export(broken, model, tmp_path / "cams.h5")
    assert not (tmp_path / "cams.h5").exists()
