"""Networks made cheaper to train on a CPU, against the networks as they are."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from batchnorm_statistics import with_statistics
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from wsss.models.backbones import (
    Backbone,
    build_backbone,
    freeze_batchnorm,
    timm_normalisation,
)
from wsss.models.config import BackboneConfig
from wsss.models.deeplab import DeepLab
from wsss.models.heads.deeplab_config import V3PlusSettings
from wsss.models.lean import lean_classifier
from wsss.models.lean_training import lighten
from wsss.models.reconstructor import CamClassifier

# Convolutions padded by the input's size, dilated ones; another family; activations before them.
NETWORKS = {
    "lite0": BackboneConfig(name="tf_efficientnet_lite0", weights="none", output_stride=16),
    "lite0-final": BackboneConfig(
        name="tf_efficientnet_lite0", weights="none", output_stride=8, final_conv=True
    ),
    "resnet": BackboneConfig(name="resnet18", weights="none", output_stride=32),
}


def classifier(config: BackboneConfig, *, frozen: bool = True) -> CamClassifier:
    torch.manual_seed(0)
    network = with_statistics(CamClassifier(build_backbone(config), 5, "paper"))
    assert isinstance(network, CamClassifier)
    return (freeze_batchnorm(network) if frozen else network).train()


def step(network: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """Return outputs and gradients of a pass."""
    x = x.clone().requires_grad_()
    found: Any = network(x)
    outputs = found if isinstance(found, tuple) else (found,)
    sum(
        (each * torch.linspace(-1, 1, each.numel()).view_as(each)).sum() for each in outputs
    ).backward()
    gradients = {name: p.grad for name, p in network.named_parameters() if p.grad is not None}
    assert x.grad is not None
    return {
        **{f"output {i}": each.detach() for i, each in enumerate(outputs)},
        "x": x.grad,
        **gradients,
    }


def assert_equal(found: dict[str, Tensor], wanted: dict[str, Tensor], most: float = 1e-2) -> None:
    """Compare by what is off in all of a tensor: rounding puts single values past a ReLU's bend."""
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        # A gradient that is zero is one of rounding errors.
        scale = max(float(value.norm()), 0.1)
        assert float((found[name] - value).norm()) / scale < most, name


@pytest.mark.parametrize("name", NETWORKS)
def test_outputs_and_gradients_stay(name: str) -> None:
    plain = classifier(NETWORKS[name])
    light = copy.deepcopy(plain)
    lighten(light)
    lighten(light)  # a second time changes nothing
    folded = [part for part in light.modules() if getattr(part, "norm_behind", None)]
    norms = sum(isinstance(part, _BatchNorm) for part in light.modules())
    assert len(folded) > 0.7 * norms
    for size in ((64, 64), (49, 35)):
        x = torch.rand(2, 3, *size)
        plain.zero_grad()
        light.zero_grad()
        assert_equal(step(light, x), step(plain, x))


def kept_bytes(network: nn.Module) -> int:
    """Return what a forward pass keeps for the backward pass, parameters left out."""
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        if not isinstance(tensor, nn.Parameter):
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        outputs = network(torch.rand(2, 3, 96, 96))
    del outputs
    return sum(kept.values())


def test_no_feature_is_kept_for_a_frozen_batchnorm() -> None:
    plain = classifier(NETWORKS["lite0"])
    light = copy.deepcopy(plain)
    lighten(light)
    assert kept_bytes(light) < 0.8 * kept_bytes(plain)


def test_names_and_weights_stay() -> None:
    plain = classifier(NETWORKS["lite0"])
    light = copy.deepcopy(plain)
    lighten(light)
    assert list(light.state_dict()) == list(plain.state_dict())
    assert [name for name, _ in light.named_modules()] == [
        name for name, _ in plain.named_modules()
    ]
    light.load_state_dict(classifier(NETWORKS["lite0"]).state_dict())
    x = torch.rand(1, 3, 48, 48)
    # Statistics that are loaded later are used; a copy looks at its own.
    changed = with_statistics(classifier(NETWORKS["lite0"]))
    twin = copy.deepcopy(light)
    twin.load_state_dict(changed.state_dict())
    assert_equal(step(twin, x), step(changed, x))
    assert_equal(step(light, x), step(plain, x))


def test_rewritten_for_inference_after_a_training() -> None:
    plain = classifier(NETWORKS["lite0"]).eval()
    light = copy.deepcopy(plain)
    lighten(light)
    x = torch.rand(1, 3, 48, 48)
    with torch.inference_mode():
        wanted = plain.inference_cam(x).cam
        found = lean_classifier(light, dtype=torch.float32).inference_cam(x).cam
    assert float((found - wanted).norm() / wanted.norm()) < 1e-3


def test_batchnorm_that_learns_is_left_alone() -> None:
    plain = classifier(NETWORKS["lite0"], frozen=False)
    light = copy.deepcopy(plain)
    lighten(light)
    x = torch.rand(2, 3, 64, 64)
    assert_equal(step(light, x), step(plain, x))
    means = [part.running_mean for part in light.modules() if isinstance(part, _BatchNorm)]
    wanted = [part.running_mean for part in plain.modules() if isinstance(part, _BatchNorm)]
    assert all(torch.allclose(a, b) for a, b in zip(means, wanted, strict=True))
    assert not any(hasattr(part, "norm_behind") for part in light.modules())


def test_segmentation_with_dilated_branches() -> None:
    torch.manual_seed(0)
    backbone = freeze_batchnorm(with_statistics(build_backbone(NETWORKS["lite0"])))
    head = V3PlusSettings(channels=16, low_level_channels=8, dropout=0.0, rates=(6, 12, 18))
    plain = DeepLab(backbone, 4, head).train()
    light = copy.deepcopy(plain)
    lighten(light)
    x = torch.rand(2, 3, 128, 160)
    assert_equal(step(light, x), step(plain, x))


@pytest.mark.parametrize(
    ("side", "dilation", "padding", "size"),
    [
        (3, (2, 2), (2, 2), (9, 12)),
        (5, (2, 2), (4, 4), (8, 8)),
        (3, (18, 18), (18, 18), (16, 16)),  # of whose kernel the centre alone meets a pixel
        (3, (12, 18), (12, 18), (16, 20)),
        (5, (4, 2), (8, 4), (6, 9)),  # whose outermost rows meet none
        (3, (2, 2), (0, 1), (11, 11)),
        (3, (3, 1), (3, 1), (7, 7)),
        (3, (3, 3), (3, 3), (10, 8)),  # no multiples of the dilation
        (5, (2, 2), (4, 4), (8, 12)),  # lower than the kernel reaches, not narrower
        (3, (12, 12), (10, 12), (10, 10)),  # padded by less than what could be left out
        (3, (4, 4), (8, 8), (3, 5)),  # whose result is larger than its input
    ],
)
@pytest.mark.parametrize("bias", [True, False])
def test_dilated_depthwise_convolution(
    side: int,
    dilation: tuple[int, int],
    padding: tuple[int, int],
    size: tuple[int, int],
    bias: bool,
) -> None:
    torch.manual_seed(0)
    plain = nn.Conv2d(
        6, 6, side, padding=padding, dilation=dilation, groups=6, bias=bias, dtype=torch.float64
    )
    light = copy.deepcopy(plain)
    lighten(light)
    assert type(light) is not type(plain)
    x = torch.rand(2, 6, *size, dtype=torch.float64)
    assert_equal(step(light, x), step(plain, x), 1e-12)


@pytest.mark.parametrize(
    "change",
    [{"groups": 3}, {"stride": 2}, {"dilation": 1}, {"padding": 5}, {"padding_mode": "reflect"}],
)
def test_other_convolutions_are_left_alone(change: dict[str, Any]) -> None:
    settings = {"kernel_size": 3, "padding": 2, "dilation": 2, "groups": 6, **change}
    conv = nn.Conv2d(6, 6, **settings)
    lighten(conv)
    assert type(conv) is nn.Conv2d


def test_gradients_of_gradients() -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(2, 2, 3, padding=2, dilation=2, groups=2, dtype=torch.float64)
    plain = nn.Sequential(conv, nn.Tanh())
    light = copy.deepcopy(plain)
    lighten(light)
    found = []
    for network in (plain, light):
        x = torch.linspace(-1, 1, 50, dtype=torch.float64).view(1, 2, 5, 5).requires_grad_()
        (gradient,) = torch.autograd.grad(network(x).square().sum(), x, create_graph=True)
        wanted = [x, *network.parameters()]
        found.append(torch.autograd.grad(gradient.square().sum(), wanted))
    for a, b in zip(*found, strict=True):
        assert torch.allclose(a, b)


class Doubled(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(2 * x)


class Steps(nn.Module):
    """What somebody's own backbone may do."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.conv, self.norm, self.act = conv, nn.BatchNorm2d(4), nn.ReLU6(inplace=True)

    def forward(self, x: Tensor) -> list[Tensor]:
        x = self.act(self.norm(self.conv(x)))
        x *= 0.5
        return [x]


@pytest.mark.parametrize("own", [True, False])
def test_what_is_not_known_is_left_alone(own: bool) -> None:
    torch.manual_seed(0)
    body = with_statistics(Steps(Doubled(3, 4, 3)))
    if not own:
        type(body).__module__ = "timm.models.steps"
    plain = freeze_batchnorm(
        Backbone(
            body,
            channels=[4],
            strides=[1],
            normalisation=timm_normalisation("tf_efficientnet_lite0"),
        )
    ).train()
    light = copy.deepcopy(plain)
    lighten(light)
    x = torch.rand(1, 3, 9, 9)
    (wanted,), (found,) = plain(x), light(x)
    assert torch.equal(found, wanted)
    found.sum().backward()
    Steps.__module__ = __name__


def test_frozen_weights_and_rounding() -> None:
    conv = nn.Conv2d(6, 6, 3, padding=2, dilation=2, groups=6).requires_grad_(False)
    lighten(conv)
    x = torch.rand(1, 6, 8, 8, requires_grad=True)
    conv(x).sum().backward()
    assert x.grad is not None
    assert conv.weight.grad is None
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert conv(x).dtype == torch.bfloat16
