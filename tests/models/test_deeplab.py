"""DeepLab heads: shapes, the published formulas, and settings that cannot be."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from head_tester import BaseHeadTester, tiny_backbone

from wsss.errors import UserError
from wsss.models.backbones import build_backbone
from wsss.models.config import BackboneConfig
from wsss.models.deeplab import DeepLab
from wsss.models.heads.deeplab_config import LargeFovSettings, V2Settings, V3PlusSettings
from wsss.segmentation.config import SegmentationConfig


class TestV3Plus(BaseHeadTester):
    settings = V3PlusSettings(channels=12, low_level_channels=4, dropout=0.0)
    stride = 4


class TestLargeFov(BaseHeadTester):
    settings = LargeFovSettings(channels=12, dropout=0.0)
    stride = 8


class TestV2(BaseHeadTester):
    settings = V2Settings()
    stride = 8


def test_lite0_in_the_light_default():
    backbone = build_backbone(BackboneConfig(weights="none"))
    network = DeepLab(backbone, 21, V3PlusSettings()).eval()
    with torch.inference_mode():
        # 65: no multiple of the stride, as training crops of 321 are not.
        assert network(torch.randn(2, 3, 64, 96)).shape == (2, 21, 16, 24)
        assert network(torch.randn(1, 3, 65, 65)).shape == (1, 21, 17, 17)
    head = sum(parameter.numel() for parameter in network.head.parameters())
    assert head < 0.5e6  # light: Lite0's body has 3.4 million


def test_v2_is_the_sum_of_four_dilated_convolutions():
    network = DeepLab(tiny_backbone(), 5, V2Settings()).double().eval()
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
    network = DeepLab(tiny_backbone(), 2, LargeFovSettings(channels=16)).eval()
    feature = torch.randn(1, 10, 31, 31, requires_grad=True)
    network.head([feature])[0, 0, 15, 15].backward()
    seen = feature.grad.abs().sum((0, 1)).nonzero().tolist()
    assert {tuple(place) for place in seen} == {(y, x) for y in (3, 15, 27) for x in (3, 15, 27)}


def test_v3plus_uses_the_image_as_a_whole():
    network = DeepLab(tiny_backbone(), 2, V3PlusSettings(channels=16)).eval()
    features = [torch.randn(1, 6, 80, 80), torch.randn(1, 8, 40, 40)]
    deep = torch.randn(1, 10, 40, 40, requires_grad=True)
    network.head([*features, deep])[0, 0, 0, 0].backward()
    # 18 + a few features away is as far as the dilations reach; the pooling branch sees all.
    assert (deep.grad[0].abs().sum(0)[30:, 30:] > 0).all()


@pytest.mark.parametrize(("strides", "level"), [((4, 8, 8), 0), ((2, 4, 8), 1), ((4, 4, 4), 1)])
def test_v3plus_joins_the_last_feature_of_stride_4_before_the_end(strides, level):
    network = DeepLab(tiny_backbone(strides=strides), 2, V3PlusSettings(channels=8)).eval()
    sizes = ((6, 32), (8, 16), (10, 8))
    features = [torch.randn(1, channels, side, side) for channels, side in sizes]
    assert network.head(features).shape == (1, 2, *features[level].shape[2:])


def test_v3plus_needs_a_feature_of_stride_4():
    with pytest.raises(UserError, match="strides"):
        DeepLab(tiny_backbone(strides=(8, 16, 16)), 5, V3PlusSettings())


@pytest.mark.parametrize(
    ("values", "key"),
    [
        ({"channels": 0}, "head.channels"),
        ({"low_level_channels": 0}, "head.low_level_channels"),
        ({"rates": (6, 0)}, "head.rates"),
        ({"name": "largefov", "rates": (6, 12)}, "head.rates"),
        ({"name": "v2", "dropout": 0.0}, "head.dropout"),
        ({"name": "v4"}, "head.name"),
        ({"dropout": 1.0}, "head.dropout"),
    ],
)
def test_impossible_settings_name_their_key(values, key):
    with pytest.raises(UserError, match=key):
        SegmentationConfig(head=values)
