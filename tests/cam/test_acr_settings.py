"""ACR's settings at other values than the defaults: what a step draws, and the networks it has."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from naive_decoder import naive_decode
from torch import Tensor

from wsss.cam.methods.acr import AcrMethod
from wsss.cam.methods.acr_config import AcrConfig, AcrSettings
from wsss.models.config import BackboneConfig
from wsss.runtime.settings import replace
from wsss.training.step import StepContext

CPU = torch.device("cpu")
SMALL = AcrSettings(
    backbone=BackboneConfig(name="test_efficientnet", weights="none"),
    crop_px=64,
    batch_size=4,
    precision="float32",
    acr=AcrConfig(
        decoder_depth=3, decoder_width=4, decode_px=32,
        feature_levels=(1, 2), feature_channels=(4, 4),
    ),
)  # fmt: skip
TAGS = [(0, 2), (1, 2), (0, 1, 2), (1,)]


def build(config: AcrSettings = SMALL, **acr: Any) -> AcrMethod:
    torch.manual_seed(1)
    return AcrMethod(replace(config, acr=replace(config.acr, **acr)), 3, device=CPU)


def context(step: int, epoch: int) -> StepContext:
    generator, rng = torch.Generator().manual_seed(step), np.random.default_rng(step)
    return StepContext(CPU, epoch, step, total_steps=40, generator=generator, rng=rng)


@pytest.mark.setting("cam.acr.q_initial", "cam.acr.q_decay")
@pytest.mark.setting("cam.acr.grid_min", "cam.acr.grid_max")
def test_targets_and_remnants_are_drawn_as_by_hand() -> None:
    method = build(q_initial=0.9, q_decay=0.15, grid_min=3, grid_max=5)
    label = torch.zeros(4, 3)
    for row, tags in zip(label, TAGS, strict=True):
        row[list(tags)] = 1
    batch = {"image": torch.zeros(4, 3, 64, 64), "valid": torch.ones(4, 1, 64, 64) > 0}
    targets, sizes = set(), set()
    for step in range(12):
        epoch = step % 4
        inputs = method.prepare({**batch, "label": label}, context(step, epoch))
        # From the same numbers: u in 0..1 an image, the side of the grid, a number a cell.
        generator = torch.Generator().manual_seed(step)
        uniform = torch.rand(4, generator=generator).tolist()
        wanted = [tags[int(u * len(tags))] for u, tags in zip(uniform, TAGS, strict=True)]
        assert inputs.target.tolist() == wanted
        cells = int(torch.randint(3, 6, (1,), generator=generator))
        fed = torch.rand(4, 1, cells, cells, generator=generator) < 0.9 - 0.15 * epoch
        nearest = torch.arange(32) * cells // 32
        assert inputs.grid is not None
        assert torch.equal(inputs.grid, fed[:, :, nearest][:, :, :, nearest].float())
        targets |= set(enumerate(wanted))
        sizes.add(cells)
    assert targets == {(image, tag) for image, tags in enumerate(TAGS) for tag in tags}
    assert sizes == {3, 4, 5}


@pytest.mark.setting("cam.acr.feature_levels", "cam.acr.feature_channels")
@pytest.mark.setting("cam.acr.preset", "cam.acr.decoder_depth", "cam.acr.decoder_width")
def test_the_reconstructor_is_built_as_the_settings_say() -> None:
    net = build(
        feature_levels=(0, 3), feature_channels=(3, 5), decoder_depth=4, decoder_width=6,
        preset="official",
    ).reconstructor.eval()  # fmt: skip
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        levels = net.encoder.backbone(x)
        parts = [
            F.interpolate(F.conv2d(levels[i], layer.weight), (32, 32), mode="bilinear")
            for i, layer in zip((0, 3), net.gather, strict=True)
        ]
        assert [part.shape[1] for part in parts] == [3, 5]
        torch.testing.assert_close(net.encode(x)[1], torch.cat(parts, 1))
        assert [block[0].out_channels for block in net.decoder.down] == [6, 12, 24, 48]
        feature = torch.randn(2, 8, 32, 32)
        naive = naive_decode(net.decoder, feature, "official")
        torch.testing.assert_close(net.decode(feature), naive, rtol=1e-4, atol=1e-4)


@pytest.mark.setting("cam.head")
def test_both_networks_have_the_head_of_the_settings() -> None:
    method = build(replace(SMALL, head="official"))
    x = torch.randn(2, 3, 64, 64)
    for network in (method.classifier, method.reconstructor.encoder):
        with torch.no_grad():
            feature = network.backbone(x)[-1]
            hidden = F.relu(F.conv2d(feature, network.head.hidden.weight))
            assert hidden.shape[1] == 256
            naive: Tensor = F.conv2d(hidden, network.head.classes.weight)
            torch.testing.assert_close(network(x)[1], naive)
