"""What every segmentation head must do; its test is a subclass that names its settings."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import torch
from torch import nn

from wsss.models.backbones import IMAGENET, Backbone
from wsss.models.config import BackboneConfig
from wsss.models.deeplab import DeepLab
from wsss.models.heads.registry import HEADS, HeadSettings
from wsss.runtime.settings import to_dict
from wsss.segmentation.config import SegmentationConfig
from wsss.segmentation.model_file import SEGMENTATION, build_network
from wsss.segmentation.training import SegmentationTask
from wsss.training.descent import take_step
from wsss.training.distributed import Split
from wsss.training.schedule import poly
from wsss.training.step import Plan

CPU = torch.device("cpu")
BACKBONE = BackboneConfig(name="test_efficientnet", weights="none", output_stride=16)


class Pyramid(nn.Module):
    """Strided convolutions: a feature each at strides 4, 8 and 8."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 6, 4, stride=4)
        self.b = nn.Conv2d(6, 8, 2, stride=2)
        self.c = nn.Conv2d(8, 10, 1)

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        a = self.a(x)
        b = self.b(a)
        return [a, b, self.c(b)]


def tiny_backbone(strides: tuple[int, ...] = (4, 8, 8)) -> Backbone:
    torch.manual_seed(0)
    return Backbone(Pyramid(), channels=(6, 8, 10), strides=strides, normalisation=IMAGENET)


class BaseHeadTester:
    """Subclasses are called Test..., and set these.

    Attributes:
        settings: Of the head, small and without dropout.
        stride: Of its logits on a backbone with features of strides 4 and 8.
    """

    settings: ClassVar[HeadSettings]
    stride: ClassVar[int]

    def config(self) -> SegmentationConfig:
        return SegmentationConfig(
            backbone=BACKBONE, head=self.settings, learning_rate=0.02, precision="float32"
        )

    def test_settings_survive_json(self) -> None:
        assert HEADS.parse(to_dict(self.settings), where="head") == self.settings

    def test_logits_have_the_heads_stride(self) -> None:
        network = DeepLab(tiny_backbone(), 5, self.settings).train()
        assert network.padding_stride == 8
        # A batch of one trains: nothing normalises over a single value.
        logits = network(torch.randn(1, 3, 32, 48))
        assert logits.shape == (1, 5, 32 // self.stride, 48 // self.stride)
        logits.square().sum().backward()
        assert [n for n, p in network.named_parameters() if p.grad is None] == []

    def test_steps_lower_the_loss(self) -> None:
        torch.manual_seed(1)
        task = SegmentationTask(build_network(self.config(), 2), self.config(), CPU)
        image = torch.rand(4, 3, 64, 64)
        target = torch.full((4, 64, 64), 2)
        target[:, :20] = 255
        valid = torch.ones(4, 1, 64, 64, dtype=torch.bool)
        batch = {"image": image, "valid": valid, "target": target}
        plan = Plan("test", 8, 4, 1, 0, 0, 1, {"network": poly}, Split())
        values = [float(take_step(task, batch, plan.context(i, CPU))["loss"]) for i in range(8)]
        assert values[-1] < 0.9 * values[0]

    def test_saved_and_loaded_it_gives_equal_logits(self, tmp_path: Path) -> None:
        network, path = build_network(self.config(), 2), tmp_path / "model.safetensors"
        SEGMENTATION.save(path, network, self.config(), classes=("a", "b"), training={})
        loaded = SEGMENTATION.load(path)
        assert loaded.settings == self.config() and loaded.classes == ("a", "b")
        x = torch.randn(2, 3, 64, 96)
        with torch.inference_mode():
            assert torch.equal(network.eval()(x), loaded.network(x))
