"""Every setting of the segmentation training, away from its default, does what it says."""

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
from wsss.models.backbones import IMAGENET
from wsss.models.config import BackboneConfig
from wsss.runtime.compute import FeatureCompute
from wsss.segmentation import training
from wsss.segmentation.config import SegmentationConfig
from wsss.training.step import Part

SIDE_PX, CROP_PX, COUNT = 32, 36, 8


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight pictures of noise, 32 px, half of a second label, some of it unlabelled."""
    folder = tmp_path_factory.mktemp("data")
    (folder / "labels").mkdir()
    rng, records = np.random.default_rng(0), []
    for i in range(COUNT):
        name = f"p{i}"
        pixels = rng.integers(0, 256, (SIDE_PX, SIDE_PX, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{name}.png")
        label = rng.integers(0, 3, (SIDE_PX, SIDE_PX)).astype(np.uint8)
        label[:4, : 4 + i] = 255
        write_label(folder / "labels" / f"{name}.png", label)
        records.append(
            ImageRecord(name, ("train",), ("red", "blue"), SIDE_PX, SIDE_PX, f"{name}.png")
        )
    write_index(Index(("red", "blue"), tuple(records)), folder / "index.csv")
    return folder


def train(data: Path, work: Path, config: SegmentationConfig) -> None:
    training.train_segmentation(
        config=config,
        labels=data / "labels",
        index=data / "index.csv",
        root=data,
        output=work / "model.safetensors",
        work_dir=work,
        compute=FeatureCompute(device="cpu", threads=1, workers=0),
    )


class Tiny(nn.Module):
    """A backbone and a head of one 1x1 convolution each, at stride 4."""

    padding_stride = 4

    def __init__(self) -> None:
        super().__init__()
        self.backbone: Any = nn.Conv2d(3, 4, 1)
        self.backbone.normalisation = IMAGENET
        self.head = nn.Conv2d(4, 3, 1)
        self.dtypes: list[torch.dtype] = []

    def forward(self, x: Tensor) -> Tensor:
        features = self.backbone(F.avg_pool2d(x, 4))
        self.dtypes.append(features.dtype)
        logits: Tensor = self.head(torch.tanh(features))
        return logits


SETTINGS: dict[str, Any] = {
    "epochs": 3,
    "batch_size": 3,
    "crop_px": CROP_PX,
    "augment": False,
    "learning_rate": 0.2,
    "head_lr_factor": 4.0,
    "head_bias_lr_factor": 2.0,
    "momentum": 0.6,
    "weight_decay": 0.1,
    "lr_power": 2.0,
    "label_smoothing": 0.2,
    "ema": 0.2,
    "loss_scales": (1.0, 0.5),
    "seed": 3,
}


def naive(data: Path, settings: dict[str, Any]) -> dict[str, Tensor]:
    """The weights of `Tiny` by the formulas, with every picture whole in its crop."""
    torch.manual_seed(settings["seed"])
    network = Tiny()
    images, labels = [], []
    mean, std = np.array(IMAGENET.mean), np.array(IMAGENET.std)
    for i in range(COUNT):
        pixels = np.array(Image.open(data / f"p{i}.png")) / 255
        image = np.zeros((CROP_PX, CROP_PX, 3))
        image[:SIDE_PX, :SIDE_PX] = (pixels - mean) / std
        label = np.full((CROP_PX, CROP_PX), 255)
        label[:SIDE_PX, :SIDE_PX] = np.array(Image.open(data / "labels" / f"p{i}.png"))
        images.append(torch.from_numpy(image).permute(2, 0, 1))
        labels.append(torch.from_numpy(label))

    def cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
        full = F.interpolate(logits, size=CROP_PX, mode="bilinear", align_corners=False)
        logs = full.log_softmax(dim=1).permute(0, 2, 3, 1)[target != 255]
        share = settings["label_smoothing"]
        goal = (1 - share) * F.one_hot(target[target != 255], 3) + share / 3
        return -(goal * logs).sum(dim=1).mean()

    def loss(weights: Any, positions: np.ndarray) -> Tensor:
        image = torch.stack([images[i] for i in positions])
        target = torch.stack([labels[i] for i in positions])
        seen = []
        for scale in settings["loss_scales"]:
            size = int(CROP_PX * scale)
            view = F.interpolate(image, size=size, mode="bilinear", align_corners=False)
            seen.append(torch.func.functional_call(network.double(), weights, (view,)))
        total = sum(cross_entropy(logits, target) for logits in seen)
        if len(seen) > 1:
            size = seen[0].shape[2:]
            equal = [F.interpolate(x, size=size, mode="bilinear") for x in seen]
            total = total + cross_entropy(torch.stack(equal).amax(dim=0), target)
        return total

    rate, decay = settings["learning_rate"], settings["weight_decay"]
    return descend(
        network,
        loss,
        count=COUNT,
        settings={
            **settings,
            "weight_decay": {
                name: decay if name.endswith("weight") else 0.0
                for name, _ in network.named_parameters()
            },
        },
        rates={
            "backbone.weight": rate,
            "backbone.bias": rate,
            "head.weight": rate * settings["head_lr_factor"],
            "head.bias": rate * settings["head_bias_lr_factor"],
        },
    )


@pytest.mark.setting(
    "segmentation.epochs",
    "segmentation.batch_size",
    "segmentation.augment",
    "segmentation.learning_rate",
    "segmentation.head_lr_factor",
    "segmentation.head_bias_lr_factor",
    "segmentation.momentum",
    "segmentation.weight_decay",
    "segmentation.lr_power",
    "segmentation.label_smoothing",
    "segmentation.ema",
    "segmentation.loss_scales",
    "segmentation.seed",
)
def test_a_training_is_what_its_settings_say(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[nn.Module] = []
    monkeypatch.setattr(training, "build_network", lambda *_: Tiny())
    save = SimpleNamespace(save=lambda path, network, *_, **__: kept.append(network))
    monkeypatch.setattr(training, "SEGMENTATION", save)
    train(data, tmp_path, SegmentationConfig(**SETTINGS))
    (network,) = kept
    found = network.state_dict()
    assert distance(found, naive(data, SETTINGS)) < 1e-4
    # Each of them at its default would be another training, and noticed.
    defaults = {key: SegmentationConfig.model_fields[key].default for key in SETTINGS}
    for key in SETTINGS.keys() - {"crop_px", "augment"}:
        assert distance(found, naive(data, {**SETTINGS, key: defaults[key]})) > 1e-3, key


def sample(
    data: Path, work: Path, monkeypatch: pytest.MonkeyPatch, config: SegmentationConfig
) -> Any:
    with monkeypatch.context() as patch:
        patch.setattr(training, "build_network", lambda *_: Tiny())
        return started(patch, training.__name__, lambda: train(data, work, config))


@pytest.mark.setting(
    "segmentation.scale_min", "segmentation.scale_max", "segmentation.flip", "segmentation.crop_px"
)
def test_crops_are_drawn_as_set(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = SegmentationConfig(crop_px=80, scale_min=0.8, scale_max=2.4, flip=False)
    images = sample(data, tmp_path, monkeypatch, config).images
    check_crops(images, 7, side_px=SIDE_PX, crop_px=80, scales=(0.8, 2.4))


@pytest.mark.setting("segmentation.precision")
def test_the_arithmetic_is_of_the_type_that_is_set(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for precision, dtype in (("bfloat16", torch.bfloat16), ("auto", torch.float32)):
        config = SegmentationConfig(precision=precision, crop_px=CROP_PX)
        task = sample(data, tmp_path, monkeypatch, config).task
        batch = {
            "image": torch.zeros(2, 3, 32, 32),
            "valid": torch.ones(2, 1, 32, 32),
            "target": torch.zeros(2, 32, 32, dtype=torch.int64),
        }
        assert task.losses(Part(batch), None)["total"].dtype == torch.float32
        assert task.network.dtypes == [dtype]


# ----- networks

LIGHT = BackboneConfig(name="test_efficientnet", weights="none", output_stride=8, final_conv=True)


def network(data: Path, work: Path, monkeypatch: pytest.MonkeyPatch, **settings: Any) -> Any:
    config = SegmentationConfig(**{"backbone": LIGHT, **settings})
    seen = started(monkeypatch, training.__name__, lambda: train(data, work, config))
    return seen.task.network


@pytest.mark.setting(
    "segmentation.backbone.name",
    "segmentation.backbone.weights",
    "segmentation.backbone.output_stride",
    "segmentation.backbone.final_conv",
)
def test_the_backbone_is_the_one_that_is_named(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    head = {"name": "largefov", "channels": 4}
    backbones = [
        network(data, tmp_path, monkeypatch, head=head, seed=seed).backbone for seed in (0, 0, 1)
    ]
    # Random weights, of the seed; those of the package would be the same.
    first, again, other = (backbone.state_dict() for backbone in backbones)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["body.conv_stem.weight"], other["body.conv_stem.weight"])
    whole = timm.create_model("test_efficientnet", num_classes=0, output_stride=8).eval()
    whole.load_state_dict(backbones[0].body.state_dict())
    x = torch.randn(1, 3, 48, 64)
    with torch.no_grad():
        found = backbones[0].eval()(x)[-1]
        torch.testing.assert_close(found, whole.forward_features(x))
    assert found.shape[2:] == (6, 8) and backbones[0].final_conv


@pytest.mark.setting("segmentation.backbone.layers", "segmentation.backbone.frozen")
def test_a_transformers_blocks_are_those_that_are_named(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vit = BackboneConfig(
        name="test_vit", weights="none", output_stride=None, layers=(0, -1), frozen=True
    )
    found = network(data, tmp_path, monkeypatch, backbone=vit, head={"name": "linear"})
    body = found.backbone.body.body
    x = torch.randn(1, 3, 160, 160)
    with torch.no_grad():
        wanted = body.forward_intermediates(x, indices=[0, len(body.blocks) - 1], norm=True)[1]
        for ours, theirs in zip(found.backbone(x), wanted, strict=True):
            torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)
    learning = {name.partition(".")[0] for name, p in found.named_parameters() if p.requires_grad}
    assert learning == {"head"}


@pytest.mark.setting("segmentation.freeze_batchnorm")
def test_batchnorm_learns_where_it_is_not_frozen(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert SegmentationConfig().freeze_batchnorm
    for frozen in (True, False):
        found = network(data, tmp_path, monkeypatch, freeze_batchnorm=frozen)
        norm = found.backbone.body.bn1
        before = norm.running_mean.clone()
        found(torch.randn(2, 3, 32, 32))
        assert torch.equal(norm.running_mean, before) == frozen
        assert norm.weight.requires_grad == (not frozen)


@pytest.mark.setting(
    "segmentation.head.name",
    "segmentation.head.rates",
    "segmentation.head.channels",
    "segmentation.head.dropout",
    "segmentation.head.low_level_channels",
)
@pytest.mark.parametrize(
    ("settings", "width"),
    [
        ({"name": "v3plus", "channels": 12, "low_level_channels": 5, "rates": (2, 3)}, 12),
        ({"name": "largefov", "channels": 7, "rates": (5,)}, 7),
        ({"name": "v2", "rates": (2, 5)}, None),
        ({"name": "linear"}, 2 * 64),
        ({"name": "fpn", "channels": 48}, 48),
    ],
)
def test_the_head_is_as_set(
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    settings: dict[str, Any],
    width: int | None,
) -> None:
    changes: dict[str, Any] = {"head": dict(settings)}
    if settings["name"] in ("linear", "fpn"):
        changes["backbone"] = BackboneConfig(
            name="test_vit", weights="none", output_stride=None, layers=(0, 1)
        )
    if width is not None:
        changes["head"]["dropout"] = 0.75
    found = network(data, tmp_path, monkeypatch, **changes)
    dilated = {
        module.dilation[0]
        for module in found.head.modules()
        if isinstance(module, nn.Conv2d) and module.dilation[0] > 1
    }
    assert dilated == set(settings.get("rates", ()))
    if settings["name"] == "v3plus":
        assert found.head.low_level[0].out_channels == 5
        assert found.head.decoder[0][0].in_channels == 12 + 5
    if width is None:
        assert [branch.kernel_size for branch in found.head.branches] == [(3, 3), (3, 3)]
        return
    # What reaches the classifier: so many channels, a quarter of their values.
    seen: list[Tensor] = []
    found.head.classifier.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    for part in found.head.modules():
        if isinstance(part, (nn.Dropout, nn.Dropout2d)):
            part.register_forward_pre_hook(lambda _, inputs: (torch.ones_like(inputs[0]),))
    found(torch.randn(8, 3, 64, 64))
    assert seen[0].shape[1] == width
    assert float((seen[0] != 0).float().mean()) == pytest.approx(0.25, abs=0.1)
