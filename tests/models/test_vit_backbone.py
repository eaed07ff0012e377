"""Plain transformers as segmentation backbones: built by settings, lean, refused where wrong."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from wsss.errors import UserError
from wsss.models.backbones import build_backbone
from wsss.models.config import BackboneConfig
from wsss.models.lean import lean_backbone

TINY: dict[str, Any] = {"name": "test_vit", "weights": "none", "output_stride": None}


def test_one_stride_and_the_features_of_the_named_blocks() -> None:
    backbone = build_backbone(BackboneConfig(**TINY, layers=(1, -1)))
    features = backbone(torch.randn(2, 3, 50, 64))
    assert backbone.strides == (16, 16) and len(set(backbone.channels)) == 1
    assert [f.shape for f in features] == [(2, backbone.out_channels, 4, 4)] * 2


def test_lean_gives_the_same_for_any_size() -> None:
    backbone = build_backbone(BackboneConfig(**TINY, frozen=True)).eval()
    inputs = [torch.randn(1, 3, *size) for size in ((64, 48), (80, 33))]
    with torch.inference_mode():
        wanted = [backbone(x)[-1] for x in inputs]
        lean = lean_backbone(backbone, dtype=torch.float32)
        for x, feature in zip(inputs, wanted, strict=True):
            assert torch.allclose(lean(x)[-1], feature, atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"output_stride": 16}, "whose stride is its patch"),
        ({"name": "resnet18"}, "no plain vision transformer"),
        ({"name": "vit_tyny"}, "did you mean"),
        ({"layers": (99,)}, r"backbone\.layers"),
        ({"name": "resnet18", "output_stride": 16, "frozen": True}, "backbone.frozen is set"),
        ({"final_conv": True}, "final_conv is true"),
    ],
)
def test_what_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        build_backbone(BackboneConfig(**{**TINY, **changes}))
