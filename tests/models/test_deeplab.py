"""DeepLab heads: shapes, the published formulas, and settings that cannot be."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from wsss.errors import UserError
from wsss.models.backbones import IMAGENET, Backbone, build_backbone
from wsss.models.config import BackboneConfig
from wsss.models.deeplab import DeepLab
from wsss.models.deeplab_config import HeadConfig


class _Pyramid(nn.Module):
    """Strided convolutions: a feature each at strides 4, 8 and 8."""

    def __init__(self):
        super().__init__()
        self.a = nn.Conv2d(3, 6, 4, stride=4)
        self.b = nn.Conv2d(6, 8, 2, stride=2)
        self.c = nn.Conv2d(8, 10, 1)

    def forward(self, x):
        a = self.a(x)
        b = self.b(a)
        return [a, b, self.c(b)]


def tiny_backbone(strides=(4, 8, 8)):
    torch.manual_seed(0)
    return Backbone(_Pyramid(), channels=(6, 8, 10), strides=strides, normalisation=IMAGENET)


HEADS = [("v3plus", 4), ("largefov", 8), ("v2", 8)]


@pytest.mark.parametrize(("name", "stride"), HEADS)
def test_logits_have_the_heads_stride(name, stride):
    network = DeepLab(tiny_backbone(), 5, HeadConfig(name=name, channels=12, low_level_channels=4))
    network.train()
    assert network.padding_stride == 8
    # A batch of one trains: nothing normalises over a single value.
    logits = network(torch.randn(1, 3, 32, 48))
    assert logits.shape == (1, 5, 32 // stride, 48 // stride)
    logits.square().sum().backward()
    missing = [n for n, p in network.named_parameters() if p.grad is None]
    assert missing == []


def test_lite0_in_the_light_default():
    backbone = build_backbone(BackboneConfig(weights="none"))
    network = DeepLab(backbone, 21, HeadConfig()).eval()
    with torch.inference_mode():
        # 65: no multiple of the stride, as training crops of 321 are not.
        assert network(torch.randn(2, 3, 64, 96)).shape == (2, 21, 16, 24)
        assert network(torch.randn(1, 3, 65, 65)).shape == (1, 21, 17, 17)
    head = sum(parameter.numel() for parameter in network.head.parameters())
    assert head < 0.5e6  # light: Lite0's body has 3.4 million


def test_v2_is_the_sum_of_four_dilated_convolutions():
    network = DeepLab(tiny_backbone(), 5, HeadConfig(name="v2")).double().eval()
    x = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    feature = network.backbone(x)[-1]
    expected = torch.zeros(2, 5, 8, 8, dtype=torch.float64)
    for branch, rate in zip(network.head.branches, (6, 12, 18, 24), strict=True):
        padded = F.pad(feature, (rate,) * 4)
        for dy in range(3):
            for dx in range(3):
                window = padded[..., dy * rate : dy * rate + 8, dx * rate : dx * rate + 8]
                weight = branch.weight[:, :, dy, dx]
                expected += torch.einsum("oc,bchw->bohw", weight, window)
        expected += branch.bias.view(1, -1, 1, 1)
    torch.testing.assert_close(network(x), expected)


def test_largefov_sees_twelve_features_away():
    network = DeepLab(tiny_backbone(), 2, HeadConfig(name="largefov", channels=16)).eval()
    feature = torch.randn(1, 10, 31, 31, requires_grad=True)
    network.head([feature])[0, 0, 15, 15].backward()
    seen = feature.grad.abs().sum((0, 1)).nonzero().tolist()
    assert {tuple(place) for place in seen} == {(y, x) for y in (3, 15, 27) for x in (3, 15, 27)}


def test_v3plus_uses_the_image_as_a_whole():
    network = DeepLab(tiny_backbone(), 2, HeadConfig(channels=16)).eval()
    features = [torch.randn(1, 6, 80, 80), torch.randn(1, 8, 40, 40)]
    deep = torch.randn(1, 10, 40, 40, requires_grad=True)
    network.head([*features, deep])[0, 0, 0, 0].backward()
    # 18 + a few features away is as far as the dilations reach; the pooling branch sees all.
    assert (deep.grad[0].abs().sum(0)[30:, 30:] > 0).all()


def test_v3plus_needs_a_feature_of_stride_4():
    with pytest.raises(UserError, match="strides"):
        DeepLab(tiny_backbone(strides=(8, 16, 16)), 5, HeadConfig())


@pytest.mark.parametrize(
    ("values", "key"),
    [
        ({"channels": 0}, "channels"),
        ({"low_level_channels": 0}, "low_level_channels"),
        ({"rates": (6, 0)}, r"rates\[1\]"),
        ({"name": "largefov", "rates": (6, 12)}, "head.rates"),
        ({"dropout": 1.0}, "dropout"),
    ],
)
def test_impossible_settings_name_their_key(values, key):
    with pytest.raises(UserError, match=key):
        HeadConfig(**values)
