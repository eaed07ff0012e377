"""Every setting of IRNet's training, away from its default, does what it says."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from naive_training import check_crops, descend, distance, started
from PIL import Image
from torch import Tensor, nn

from wsss.data.images import write_label
from wsss.data.index import ImageRecord, Index, write_index
from wsss.errors import UserError
from wsss.irn import training
from wsss.irn.config import IrnConfig
from wsss.irn.losses import irn_losses
from wsss.models.backbones import IMAGENET
from wsss.models.config import BackboneConfig
from wsss.models.irnet import MeanShift
from wsss.runtime.compute import Compute
from wsss.training.step import Part

# With the default radius, the smallest crop that has pairs.
SIDE_PX, COUNT = 76, 6


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of noise; their labels are blocks, the upper left one unlabelled."""
    folder = tmp_path_factory.mktemp("data")
    (folder / "labels").mkdir()
    rng, records = np.random.default_rng(0), []
    for i in range(COUNT):
        name = f"p{i}"
        small = rng.integers(0, 256, (19, 19, 3), dtype=np.uint8)
        Image.fromarray(small.repeat(4, 0).repeat(4, 1)).save(folder / f"{name}.png")
        label = rng.integers(0, 3, (4, 4)).astype(np.uint8).repeat(19, 0).repeat(19, 1)
        label[:19, :19] = 255
        write_label(folder / "labels" / f"{name}.png", label)
        records.append(ImageRecord(name, ("train",), ("a", "b"), SIDE_PX, SIDE_PX, f"{name}.png"))
    write_index(Index(("a", "b"), tuple(records)), folder / "index.csv")
    return folder


def train(data: Path, work: Path, config: IrnConfig) -> None:
    training.train_irn(
        config=config,
        labels=data / "labels",
        index=data / "index.csv",
        root=data,
        output=work / "model.safetensors",
        work_dir=work,
        compute=Compute(device="cpu", threads=1, workers=0),
    )


class Tiny(nn.Module):
    """Edges and displacements by a 1x1 convolution each, at stride 4."""

    backbone = SimpleNamespace(normalisation=IMAGENET)

    def __init__(self) -> None:
        super().__init__()
        self.edge = nn.Conv2d(3, 1, 1)
        self.displacement = nn.Conv2d(3, 2, 1)
        self.mean_shift = MeanShift()
        self.dtypes: list[torch.dtype] = []

    def edge_parameters(self) -> list[nn.Parameter]:
        return list(self.edge.parameters())

    def displacement_parameters(self) -> list[nn.Parameter]:
        return list(self.displacement.parameters())

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        small = F.avg_pool2d(x, 4)
        edge, displacement = self.edge(small), self.displacement(small)
        self.dtypes.append(edge.dtype)
        return edge.float(), displacement.float()


SETTINGS: dict[str, Any] = {
    "epochs": 2,
    "batch_size": 3,
    "crop_px": SIDE_PX,
    "scale_min": 1.0,
    "scale_max": 1.0,
    "flip": False,
    "radius": 4,
    "learning_rate": 0.05,
    "displacement_lr_factor": 3.0,
    "momentum": 0.7,
    "weight_decay": 0.2,
    "lr_power": 2.0,
    "seed": 5,
}


def naive(data: Path, settings: dict[str, Any]) -> dict[str, Tensor]:
    """The weights of `Tiny` by the formulas."""
    torch.manual_seed(settings["seed"])
    network = Tiny()
    mean, std = np.array(IMAGENET.mean), np.array(IMAGENET.std)
    small, labels = [], []
    for i in range(COUNT):
        pixels = (np.array(Image.open(data / f"p{i}.png")) / 255 - mean) / std
        # Blocks of 4 x 4 equal pixels: each is its own mean.
        small.append(torch.from_numpy(pixels[::4, ::4]).permute(2, 0, 1))
        label = np.array(Image.open(data / "labels" / f"p{i}.png")).astype(np.int64)
        labels.append(torch.from_numpy(label[2::4, 2::4]))

    def loss(weights: Any, positions: np.ndarray) -> Tensor:
        x, label = (torch.stack([of[i] for i in positions]) for of in (small, labels))
        maps = {
            name: torch.einsum("oc,bchw->bohw", weights[f"{name}.weight"][:, :, 0, 0], x)
            + weights[f"{name}.bias"][None, :, None, None]
            for name in ("edge", "displacement")
        }
        radius = settings["radius"]
        return irn_losses(maps["edge"][:, 0], maps["displacement"], label, radius=radius).total

    rate = settings["learning_rate"]
    names = [name for name, _ in network.named_parameters()]
    return descend(
        network,
        loss,
        count=COUNT,
        settings={
            **settings,
            "ema": 0.0,
            "weight_decay": dict.fromkeys(names, settings["weight_decay"]),
        },
        rates={
            name: rate * (1.0 if name.startswith("edge") else settings["displacement_lr_factor"])
            for name in names
        },
    )


@pytest.mark.setting(
    "irn.epochs",
    "irn.batch_size",
    "irn.radius",
    "irn.learning_rate",
    "irn.displacement_lr_factor",
    "irn.momentum",
    "irn.weight_decay",
    "irn.lr_power",
    "irn.seed",
)
def test_a_training_is_what_its_settings_say(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[nn.Module] = []
    monkeypatch.setattr(training, "build_irnet", lambda *_, **__: Tiny())
    save = SimpleNamespace(save=lambda path, network, *_, **__: kept.append(network))
    monkeypatch.setattr(training, "IRNET", save)
    train(data, tmp_path, IrnConfig(**SETTINGS))
    found = {name: value.detach() for name, value in kept[0].named_parameters()}
    assert distance(found, naive(data, SETTINGS)) < 1e-4
    # Each of them at its default would be another training, and noticed. (The batch's default has
    # more images than there are.)
    others = {
        **{key: IrnConfig.model_fields[key].default for key in SETTINGS},
        "batch_size": 6,
    }
    for key in SETTINGS.keys() - {"crop_px", "scale_min", "scale_max", "flip"}:
        assert distance(found, naive(data, {**SETTINGS, key: others[key]})) > 1e-3, key


def sample(data: Path, work: Path, monkeypatch: pytest.MonkeyPatch, config: IrnConfig) -> Any:
    with monkeypatch.context() as patch:
        patch.setattr(training, "build_irnet", lambda *_, **__: Tiny())
        return started(patch, training.__name__, lambda: train(data, work, config))


@pytest.mark.setting("irn.scale_min", "irn.scale_max", "irn.flip", "irn.crop_px")
def test_crops_are_drawn_as_set(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = IrnConfig(crop_px=192, scale_min=0.8, scale_max=2.4, flip=False)
    images = sample(data, tmp_path, monkeypatch, config).images
    check_crops(images, 0, side_px=SIDE_PX, crop_px=192, scales=(0.8, 2.4))


@pytest.mark.setting("irn.precision")
def test_the_arithmetic_is_of_the_type_that_is_set(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for precision, dtype in (("bfloat16", torch.bfloat16), ("auto", torch.float32)):
        task = sample(data, tmp_path, monkeypatch, IrnConfig(precision=precision)).task
        batch = {
            "image": torch.zeros(2, 3, 76, 76),
            "valid": torch.ones(2, 1, 76, 76),
            "target": torch.zeros(2, 76, 76, dtype=torch.int64),
        }
        assert task.losses(Part(batch), None)["total"].dtype == torch.float32
        assert task.network.dtypes == [dtype]


# ----- networks


def network(data: Path, work: Path, monkeypatch: pytest.MonkeyPatch, **settings: Any) -> Any:
    config = IrnConfig(**settings)
    seen = started(monkeypatch, training.__name__, lambda: train(data, work, config))
    return seen.task.network


@pytest.mark.setting(
    "irn.backbone.name",
    "irn.backbone.weights",
    "irn.backbone.output_stride",
    "irn.backbone.final_conv",
)
def test_the_backbone_is_the_one_that_is_named(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    light = BackboneConfig(
        name="test_efficientnet", weights="none", output_stride=8, final_conv=True
    )
    backbones = [
        network(data, tmp_path, monkeypatch, backbone=light, seed=seed).backbone
        for seed in (0, 0, 1)
    ]
    # Random weights, of the seed; those of the package would be the same.
    first, again, other = (backbone.state_dict() for backbone in backbones)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["body.conv_stem.weight"], other["body.conv_stem.weight"])
    whole = timm.create_model("test_efficientnet", num_classes=0, output_stride=8).eval()
    whole.load_state_dict(backbones[0].body.state_dict())
    x = torch.randn(1, 3, 48, 64)
    with torch.no_grad():
        found = backbones[0](x)[-1]
        torch.testing.assert_close(found, whole.forward_features(x))
    assert found.shape[2:] == (6, 8) and backbones[0].final_conv


@pytest.mark.setting("irn.dilation")
def test_dilation_goes_where_that_is_asked_for(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone = BackboneConfig(name="test_resnet", weights="none", output_stride=8)
    found = {}
    for dilation in (True, False):
        net = network(data, tmp_path, monkeypatch, backbone=backbone, dilation=dilation)
        convolutions = [m for m in net.backbone.modules() if isinstance(m, nn.Conv2d)]
        found[dilation] = {convolution.dilation for convolution in convolutions}
    assert found[False] == {(1, 1)} < found[True]


@pytest.mark.setting("irn.backbone.layers", "irn.backbone.frozen")
def test_what_is_a_transformers_is_refused_and_not_passed_over(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vit: dict[str, Any] = {"name": "test_vit", "weights": "none"}
    for layers, strides in (((), r"\[16\]"), ((0, -1), r"\[16, 16\]")):
        backbone = BackboneConfig(**vit, output_stride=None, layers=layers)
        with pytest.raises(UserError, match=f"backbone with strides {strides}"):
            network(data, tmp_path, monkeypatch, backbone=backbone)
    for key, value in (("layers", (0,)), ("frozen", True)):
        with pytest.raises(UserError, match=f"backbone.{key} is set"):
            IrnConfig(backbone={"weights": "none", key: value})
