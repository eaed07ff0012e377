"""Light heads on a transformer's features."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from head_tester import BaseHeadTester
from torch import nn

from wsss.models.backbones import IMAGENET, Backbone, build_backbone
from wsss.models.config import BackboneConfig
from wsss.models.deeplab import DeepLab
from wsss.models.heads.tokens import LinearHead, PyramidHead
from wsss.models.heads.tokens_config import LinearSettings, PyramidSettings


class TestLinear(BaseHeadTester):
    settings = LinearSettings(dropout=0.0)
    stride = 8


class TestPyramid(BaseHeadTester):
    settings = PyramidSettings(channels=8, dropout=0.0)
    stride = 2


def tokens(count: int) -> Backbone:
    return Backbone(
        nn.Identity(), channels=(6,) * count, strides=(16,) * count, normalisation=IMAGENET
    )


def features(count: int, height: int = 5, width: int = 7) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(2, 6, height, width, generator=generator) for _ in range(count)]


def test_linear_is_linear_in_normalised_features() -> None:
    head = LinearHead(tokens(2), 4, LinearSettings()).eval()
    nn.init.normal_(head.classifier.weight)
    head.norm.running_mean.uniform_(-1, 1)
    head.norm.running_var.uniform_(0.5, 2)
    both = torch.cat(features(2), dim=1)
    mean, var = (v[None, :, None, None] for v in (head.norm.running_mean, head.norm.running_var))
    wanted = torch.einsum(
        "lc,bchw->blhw", head.classifier.weight[:, :, 0, 0], (both - mean) / (var + 1e-5).sqrt()
    )
    assert torch.allclose(head(features(2)), wanted, atol=1e-5)


@pytest.mark.parametrize("count", [1, 2, 4])
def test_pyramid_is_four_times_as_fine_and_learns_from_every_level(count: int) -> None:
    head = PyramidHead(tokens(count), 3, PyramidSettings(channels=8))
    inputs = [feature.requires_grad_() for feature in features(count)]
    logits = head(inputs)
    assert logits.shape == (2, 3, 20, 28)
    logits.square().sum().backward()
    assert all(feature.grad is not None and feature.grad.abs().sum() > 0 for feature in inputs)


def test_pyramid_adds_its_levels_up_from_coarse_to_fine() -> None:
    head = PyramidHead(tokens(4), 3, PyramidSettings(channels=8)).eval()
    inputs = features(4, 3, 2)
    # Half of 3 by 2 is rounded, to no less than one.
    sizes = ((12, 8), (6, 4), (3, 2), (2, 1))
    total = torch.zeros(2, 8, 1, 1)
    for lateral, feature, size in reversed(list(zip(head.lateral, inputs, sizes, strict=True))):
        level = torch.einsum("oi,bihw->bohw", lateral.weight[:, :, 0, 0], feature)
        level = level + lateral.bias[None, :, None, None]
        both = (level, total)
        level, total = (F.interpolate(each, size, mode="bilinear") for each in both)
        total = level + total
    wanted = head.classifier(head.smooth(total))
    torch.testing.assert_close(head(inputs), wanted)


def test_pyramid_of_a_single_token() -> None:
    head = PyramidHead(tokens(4), 3, PyramidSettings(channels=8)).eval()
    assert head(features(4, 1, 1)).shape == (2, 3, 4, 4)


@pytest.mark.parametrize("settings", [LinearSettings(), PyramidSettings(channels=8)])
@pytest.mark.parametrize("frozen", [True, False])
def test_on_a_transformer_only_what_is_not_frozen_learns(
    settings: LinearSettings | PyramidSettings, frozen: bool
) -> None:
    backbone = build_backbone(
        BackboneConfig(
            name="test_vit", weights="none", output_stride=None, layers=(0, -1), frozen=frozen
        )
    )
    network = DeepLab(backbone, 3, settings).train()
    network(torch.randn(2, 3, 40, 48)).square().sum().backward()
    learning = {name.split(".")[0] for name, p in network.named_parameters() if p.grad is not None}
    assert learning == ({"head"} if frozen else {"head", "backbone"})
