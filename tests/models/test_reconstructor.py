from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from naive_decoder import naive_decode
from torch import nn

from wsss.errors import UserError
from wsss.models.backbones import IMAGENET, Backbone
from wsss.models.reconstructor import CamClassifier, Decoder, Reconstructor

# ACR, CVPR 2023, supplementary, Table A1: (channels, size) block by block.
TABLE_A1_DOWN = [
    (64, 128), (128, 64), (256, 32), (512, 16), (512, 8), (512, 4), (512, 2), (512, 1),
]  # fmt: skip
TABLE_A1_UP = [
    (1024, 2), (1024, 4), (1024, 8), (1024, 16), (512, 32), (256, 64), (128, 128),
]  # fmt: skip


@pytest.mark.parametrize("preset", ["paper", "official"])
def test_table_a1_off_the_live_model(preset):
    with torch.device("meta"):
        decoder = Decoder(448, depth=8, width=64, preset=preset)
        x = torch.empty(1, 448, 256, 256)
    down: list[tuple[int, int]] = []
    up: list[tuple[int, int]] = []
    for block in decoder.down:
        block.register_forward_hook(
            lambda module, args, out: down.append((out.shape[1], out.shape[2]))
        )
    # What a block joins with its skip is what the next one is given.
    for block in [*decoder.up][1:]:
        block.register_forward_pre_hook(
            lambda module, args: up.append((args[0].shape[1], args[0].shape[2]))
        )
    decoder.colour.register_forward_pre_hook(
        lambda module, args: up.append((args[0].shape[1], args[0].shape[2]))
    )
    out = decoder(x)
    assert down == TABLE_A1_DOWN
    if preset == "official":  # the resize comes before its convolution: twice U1's size
        assert up[-1] == (128, 256)
        up[-1] = (128, 128)
    assert up == TABLE_A1_UP
    assert out.shape == (1, 3, 256, 256)


@pytest.mark.parametrize("preset", ["paper", "official"])
def test_layers_of_the_blocks(preset):
    with torch.device("meta"):
        decoder = Decoder(448, depth=8, width=64, preset=preset)
    conv, norm, activation, dropout = zip(*(list(block) for block in decoder.down), strict=True)
    assert {(c.kernel_size, c.stride, c.padding, c.bias) for c in conv} == {
        ((4, 4), (2, 2), (1, 1), None)
    }
    assert [isinstance(n, nn.InstanceNorm2d) for n in norm] == [False] + [True] * 6 + [False]
    assert not any(n.affine for n in norm if isinstance(n, nn.InstanceNorm2d))
    assert {(type(a), a.negative_slope) for a in activation} == {(nn.LeakyReLU, 0.2)}
    assert [d.p for d in dropout] == [0.0] * 3 + [0.5] * 5
    conv, norm, activation, dropout = zip(*(list(block) for block in decoder.up), strict=True)
    assert {(type(c), c.kernel_size, c.stride, c.padding, c.bias) for c in conv} == {
        (nn.ConvTranspose2d, (4, 4), (2, 2), (1, 1), None)
    }
    assert all(isinstance(n, nn.InstanceNorm2d) for n in norm)
    assert {type(a) for a in activation} == {nn.LeakyReLU if preset == "paper" else nn.ReLU}
    assert [d.p for d in dropout] == [0.5] * 4 + [0.0] * 3
    assert decoder.colour.kernel_size == ((1, 1) if preset == "paper" else (3, 3))
    assert decoder.colour.bias is not None


@pytest.mark.parametrize("preset", ["paper", "official"])
@pytest.mark.parametrize("depth", [2, 4, 5])
def test_decoder_against_its_description(preset, depth):
    torch.manual_seed(depth)
    decoder = Decoder(6, depth=depth, width=4, preset=preset).double().eval()
    x = torch.randn(2, 6, 64, 64, dtype=torch.float64)
    with torch.no_grad():
        ours, naive = decoder(x), naive_decode(decoder, x, preset)
    assert torch.allclose(ours, naive, rtol=1e-9, atol=1e-9)


def test_narrow_decoders_follow_the_same_rule():
    decoder = Decoder(112, depth=5, width=32, preset="paper")
    assert [block[0].out_channels for block in decoder.down] == [32, 64, 128, 256, 256]
    assert [block[0].out_channels for block in decoder.up] == [256, 128, 64, 32]


@pytest.mark.parametrize(("side", "named"), [(224, "256, 512"), (100, "256"), (300, "256, 512")])
def test_sizes_that_do_not_fit_are_errors_with_the_fitting_ones(side, named):
    decoder = Decoder(2, depth=8, width=1, preset="paper")
    with pytest.raises(UserError, match=named):
        decoder(torch.zeros(1, 2, side, side))


class Pyramid(nn.Module):
    """Three features of strides 2, 4, 8."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Conv2d(a, b, 3, stride=2, padding=1) for a, b in ((3, 4), (4, 5), (5, 6))
        )

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        features = []
        for layer in self.layers:
            x = layer(x).relu()
            features.append(x)
        return features


def pyramid() -> Backbone:
    return Backbone(Pyramid(), channels=(4, 5, 6), strides=(2, 4, 8), normalisation=IMAGENET)


@pytest.mark.parametrize("preset", ["paper", "official"])
def test_class_logits_are_the_cams_mean(preset):
    classifier = CamClassifier(pyramid(), 7, preset)
    x = torch.randn(2, 3, 32, 48)
    logits, cam = classifier(x)
    feature = classifier.backbone(x)[-1]
    if preset == "official":
        feature = F.relu(F.conv2d(feature, classifier.head.hidden.weight))
        assert classifier.head.hidden.out_channels == 256
    naive = torch.einsum("cd,bdhw->bchw", classifier.head.classes.weight[:, :, 0, 0], feature)
    assert cam.shape == (2, 7, 4, 6)
    assert torch.allclose(cam, naive, atol=1e-5)
    assert torch.allclose(logits, naive.flatten(2).mean(-1), atol=1e-5)
    assert classifier.head.classes.bias is None


def test_gathered_feature_is_in_the_finest_levels_size_and_in_order():
    net = Reconstructor(
        pyramid(), 7, head="paper", levels=(1, 2), channels=(3, 2), depth=3, width=4,
        preset="paper",
    )  # fmt: skip
    x = torch.randn(2, 3, 64, 64)
    logits, feature, image = net(x, 64)
    levels = net.encoder.backbone(x)
    assert feature.shape == (2, 5, 16, 16)
    assert torch.allclose(feature[:, :3], net.gather[0](levels[1]), atol=1e-5)
    small = net.gather[1](levels[2])
    resized = F.interpolate(small, size=(16, 16), mode="bilinear", align_corners=False)
    assert torch.allclose(feature[:, 3:], resized, atol=1e-5)
    assert torch.allclose(logits, net.encoder(x)[0], atol=1e-5)
    assert image.shape == (2, 3, 64, 64)
    assert all(layer.bias is None for layer in net.gather)
    assert net.encode(x, classify=False)[0] is None


def test_a_level_the_backbone_does_not_have():
    with pytest.raises(UserError, match="3 features"):
        Reconstructor(
            pyramid(), 7, head="paper", levels=(3,), channels=(2,), depth=3, width=4,
            preset="paper",
        )  # fmt: skip
