"""The paper's figures: what is drawn is what was computed, for the images asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cam_settings import cam_settings
from conftest import Project, write_tiny_data

from wsss.cam.model_file import CLASSIFIER
from wsss.cam.training import train_cam
from wsss.data import drawing
from wsss.data.build import build_index
from wsss.data.formats.folder import FolderSettings
from wsss.data.images import read_image
from wsss.data.index import read_index, write_index
from wsss.data.sampling import shown_records
from wsss.errors import UserError
from wsss.figures.reconstruction import (
    TILE_WIDTH_PX,
    central_square,
    draw_phases,
    load_reconstructor,
    phases,
    write_reconstructions,
)
from wsss.runtime.compute import Compute

COMPUTE = Compute(device="cpu", threads=1, workers=0)
TINY: dict[str, Any] = {
    "backbone": {"name": "test_efficientnet", "weights": "none", "output_stride": 16},
    "epochs": 2,
    "batch_size": 4,
    "crop_px": 48,
    "long_side_min_px": 48,
    "long_side_max_px": 64,
    "learning_rate": 0.001,
    "precision": "float32",
    "acr": {
        "decoder_depth": 3,
        "decoder_width": 4,
        "decode_px": 32,
        "feature_levels": [1, 2],
        "feature_channels": [4, 4],
        "grid_min": 4,
        "grid_max": 4,
        "q_initial": 0.5,
        "q_decay": 0.1,
    },
}


def train(folder: Path, name: str, **settings: Any) -> tuple[Path, Path]:
    files = (folder / f"{name}.safetensors", folder / f"{name}_reconstructor.safetensors")
    train_cam(
        config=cam_settings({**TINY, **settings}),
        index=folder / "index.csv",
        root=folder,
        output=files[0],
        work_dir=folder / f"work_{name}",
        compute=COMPUTE,
        reconstructor_output=files[1],
    )
    return files


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("tiny")
    write_tiny_data(root)
    write_index(build_index(FolderSettings(), root), root / "index.csv")
    return root


@pytest.fixture(scope="module")
def trained(data: Path) -> tuple[Path, Path]:
    return train(data, "acr")


def test_the_square_is_the_middle_of_the_image() -> None:
    image = np.zeros((40, 100, 3), np.uint8)
    image[:, 30:70] = 200
    square = central_square(image, 20)
    assert square.shape == (3, 20, 20)
    assert int(square[:, :, 2:-2].min()) > 190
    same = np.random.default_rng(0).integers(0, 255, (24, 24, 3), dtype=np.uint8)
    assert np.array_equal(central_square(same, 24).permute(1, 2, 0).numpy(), same)


def test_phases_are_the_definition(data: Path, trained: tuple[Path, Path]) -> None:
    """A_t, g and the four reconstructions, one at a time in float64."""
    model = CLASSIFIER.load(trained[0])
    adversary = load_reconstructor(trained[1], model)
    record = read_index(data / "index.csv").records[2]
    image = central_square(read_image(data / record.path), 48)
    target = 1
    result = phases(model, adversary, image, target, torch.Generator().manual_seed(3))

    def colours(values: tuple[float, float, float]) -> torch.Tensor:
        return torch.tensor(values, dtype=torch.float64).view(1, 3, 1, 1)

    classifier, adversary = model.network.double(), adversary.double()
    norm = classifier.normalisation
    x = (image[None].double() / 255 - colours(norm.mean)) / colours(norm.std)
    with torch.no_grad():
        cam = classifier(x)[1][:, target : target + 1].relu()
        low, high = cam.min(), cam.max()
        cam = (cam - low - 1e-5).relu() / (high - low + 1e-5)
        a = torch.nn.functional.interpolate(cam, size=(32, 32), mode="bilinear")
        feature = torch.nn.functional.interpolate(
            adversary.encode(x)[1], size=(32, 32), mode="bilinear"
        )
        # q in the second and last epoch is 0.4; 4 x 4 cells of 8 px.
        drawn = torch.rand(1, 1, 4, 4, generator=torch.Generator().manual_seed(3)) < 0.4
        g = drawn.double().repeat_interleave(8, 2).repeat_interleave(8, 3)
        fed = [a + (1 - a) * g, (1 - a) + a * g, a, 1 - a]
        decoded = [adversary.decode(feature * segment) for segment in fed]
    np.testing.assert_allclose(result.target_map, a[0, 0].numpy(), atol=1e-4)
    assert result.grid is not None
    assert np.array_equal(result.grid, g[0, 0].numpy())
    assert 0 < result.grid.mean() < 1
    mean, std = colours((0.485, 0.456, 0.406)), colours((0.229, 0.224, 0.225))
    for shown, values in zip(result.reconstructions, decoded, strict=True):
        expected = ((values * std + mean).clamp(0, 1) * 255)[0].permute(1, 2, 0).numpy()
        np.testing.assert_allclose(shown.astype(float), expected, atol=0.6)


def test_the_row_shows_all_of_it(data: Path, trained: tuple[Path, Path]) -> None:
    model = CLASSIFIER.load(trained[0])
    adversary = load_reconstructor(trained[1], model)
    record = read_index(data / "index.csv").records[0]
    image = central_square(read_image(data / record.path), 48)
    result = phases(model, adversary, image, 0, torch.Generator().manual_seed(0))
    row = draw_phases(image.permute(1, 2, 0).numpy(), "title", result, 0.4)
    step = TILE_WIDTH_PX + 4
    assert row.shape == (TILE_WIDTH_PX + drawing.LINE_PX, 8 * step - 4, 3)
    tiles = [row[drawing.LINE_PX :, i * step : i * step + TILE_WIDTH_PX] for i in range(8)]
    assert result.grid is not None
    cell = TILE_WIDTH_PX // 4
    assert np.array_equal(
        tiles[3][cell // 2 :: cell, cell // 2 :: cell, 0], 255 * result.grid[4::8, 4::8]
    )
    for tile, expected in zip(tiles[4:], result.reconstructions, strict=True):
        assert np.array_equal(tile, drawing.resized(expected, TILE_WIDTH_PX))


def write(data: Path, files: tuple[Path, Path], output: Path, **changes: Any) -> None:
    write_reconstructions(
        model=files[0],
        reconstructor=files[1],
        index=data / "index.csv",
        root=data,
        output=output,
        split="train",
        compute=COMPUTE,
        **changes,
    )


def test_one_row_a_tag_and_the_same_bytes_again(
    data: Path, trained: tuple[Path, Path], tmp_path: Path
) -> None:
    names = ["image_01", "image_02", "image_09"]
    write(data, trained, tmp_path / "a", names=names)
    write(data, trained, tmp_path / "b", names=names)
    # image_09 is of another split.
    assert sorted(p.name for p in (tmp_path / "a").glob("[!.]*")) == [
        *("image_01.png", "image_02.png", "index.png")
    ]
    tags = {record.name: record.tags for record in read_index(data / "index.csv").records}
    for path in sorted((tmp_path / "a").glob("[!.]*")):
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()
        if path.stem in tags:
            row = TILE_WIDTH_PX + drawing.LINE_PX
            assert read_image(path).shape[0] == len(tags[path.stem]) * (row + 4) - 4
    assert {len(tags["image_01"]), len(tags["image_02"])} == {1, 2}


def test_files_of_two_trainings_are_refused(
    data: Path, trained: tuple[Path, Path], tmp_path: Path
) -> None:
    other = train(data, "seed1", seed=1, epochs=1)
    with pytest.raises(UserError, match="not trained against this classifier"):
        write(data, (trained[0], other[1]), tmp_path / "a")
    with pytest.raises(UserError, match="of stage 'cam'"):
        write(data, (trained[0], trained[0]), tmp_path / "a")
    with pytest.raises(UserError, match="of stage 'reconstructor'"):
        CLASSIFIER.load(trained[1])
    with pytest.raises(UserError, match="no reconstructor to write"):
        train(data, "plain", method="cam")
    assert not (tmp_path / "a").exists()


def test_names_serve_the_pictures_of_every_split(data: Path) -> None:
    index = read_index(data / "index.csv")

    def shown(split: str, *names: str) -> list[str]:
        return [r.name for r in shown_records(index, split=split, names=names, count=1)]

    assert shown("train", "image_09", "image_03", "image_01") == ["image_03", "image_01"]
    assert shown("val", "image_09", "image_03") == ["image_09"]
    assert shown("val", "image_03") == shown("val")
    with pytest.raises(UserError, match="not in the index: image_99"):
        shown("val", "image_99")


def test_plans_of_figures(project: Project) -> None:
    plan = project.planned(
        "results/tiny/figures.sha256",
        "results/tiny/figures/versus-tiny-cam.sha256",
        "results/tiny/figures/versus-tiny-gt.sha256",
    )
    drawn = {
        rule: count
        for rule, count in plan.items()
        if "figures" in rule or rule == "reconstructions"
    }
    assert drawn == {
        "figures_cam": 1,
        "figures_segmentation": 1,
        "reconstructions": 1,
        # tiny-cam stops at the CAMs, tiny-gt has none.
        "figures_versus_cam": 1,
        "figures_versus_segmentation": 1,
        "all_figures": 1,
        "all_figures_versus": 2,
    }
    done = project.snakemake("-n", "results/tiny-cam/figures/versus-tiny-gt.sha256")
    assert done.returncode != 0 and "no results that can be compared" in done.stdout
    assert "expected: runs that both make CAMs, or both a segmentation" in done.stdout
