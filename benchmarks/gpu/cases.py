"""The trainings that the parts step through: a run's settings, pictures that are made up.

One place builds a task for a device from a run of `config.yaml`, so that every part measures what
users train. Weights are those of EfficientNet-Lite0's package, or random: nothing is fetched.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from timm.layers.drop import DropPath
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

from benchmarks.acr_step import batch_of, context_of
from benchmarks.harness import ROOT
from wsss.cam.model_file import cam_task
from wsss.irn.training import IrnTask
from wsss.models.backbones import build_backbone, freeze_batchnorm
from wsss.models.config import BackboneConfig
from wsss.models.deeplab import DeepLab
from wsss.models.irnet import IrNet
from wsss.project.config import load_config
from wsss.runtime.settings import replace
from wsss.segmentation.training import SegmentationTask
from wsss.training.descent import take_step

CLASSES = 20

Batch = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """One training of one run.

    Attributes:
        name: For the report.
        run: A run of `config.yaml`.
        stage: Whose training: `cam`, `irn` or `segmentation`.
        small: Settings that make it small enough for a comparison with a CPU.
    """

    name: str
    run: str
    stage: str
    small: Mapping[str, Any]

    def settings(self, **changes: Any) -> Any:
        """Return the run's settings of the stage with what `changes` says, files left out."""
        config = load_config(folder=ROOT).run(self.run).stages[self.stage]
        if hasattr(config, "vit"):
            # The peak of its learning rate is linear in the batch: kept as the run has it.
            factor = config.batch_size / changes.get("batch_size", config.batch_size)
            rate = config.vit.learning_rate_at_512 * factor
            vit = replace(config.vit, weights="none", learning_rate_at_512=rate)
            changes = {**changes, "vit": vit}
        if hasattr(config, "backbone"):
            changes = {**changes, "backbone": without_file(config.backbone)}
        return replace(config, **changes)

    def task(self, config: Any, device: torch.device) -> Any:
        """Build the training's task from the same initial weights every time."""
        torch.manual_seed(0)
        if self.stage == "cam":
            return cam_task(config, CLASSES, device=device)
        backbone = build_backbone(config.backbone)
        if self.stage == "irn":
            return IrnTask(IrNet(backbone, dilation=config.dilation), config, device)
        if config.freeze_batchnorm:
            freeze_batchnorm(backbone)
        return SegmentationTask(DeepLab(backbone, CLASSES + 1, config.head), config, device)

    def batch(self, config: Any, step: int, device: torch.device) -> Batch:
        """Return made-up pictures with labels, a function of `step` alone."""
        found = batch_of(config, step, torch.device("cpu"))
        if self.stage != "cam":
            found["target"] = blobs(config.batch_size, config.crop_px, step)
        return {key: value.to(device, non_blocking=True) for key, value in found.items()}


def without_file(backbone: BackboneConfig) -> BackboneConfig:
    """Return the backbone with weights that need no file."""
    kept = backbone.weights in ("package", "none")
    return backbone if kept else replace(backbone, weights="none")


def blobs(count: int, side_px: int, step: int) -> Tensor:
    """Return (count, S, S) int64 labels: two rectangles of classes, a stripe that is unsure."""
    rng = np.random.default_rng(step)
    target = torch.zeros(count, side_px, side_px, dtype=torch.int64)
    for picture in target:
        for label in rng.integers(1, CLASSES + 1, 2):
            top, left = rng.integers(0, side_px // 2, 2)
            picture[top : top + side_px // 2, left : left + side_px // 2] = int(label)
        picture[:, side_px // 3 : side_px // 3 + 4] = 255
    return target


LITE = {"crop_px": 128, "batch_size": 4}
DEEP = {"crop_px": 256, "batch_size": 2}
CASES = (
    Case("cam, Lite0", "voc-lite-cam", "cam", LITE),
    Case("acr, Lite0", "voc-lite", "cam", LITE),
    Case("IRNet, Lite0", "voc-lite", "irn", LITE),
    Case("DeepLab v3plus, Lite0", "voc-lite", "segmentation", LITE),
    Case("acr, ResNet-38", "voc", "cam", DEEP),
    Case("IRNet, ResNet-50", "voc", "irn", DEEP),
    Case("DeepLab largefov, ResNet-38", "voc", "segmentation", {**DEEP, "crop_px": 161}),
    Case("DeepLab v2, ResNet-101", "voc-v2", "segmentation", {**DEEP, "crop_px": 161}),
    Case("mct, DeiT-S", "voc-mct", "cam", {"batch_size": 2}),
    Case("acr-vit, DeiT-S", "voc-vit", "cam", {"batch_size": 2}),
)


def case(name: str) -> Case:
    """Return the case called `name`."""
    return next(case for case in CASES if case.name == name)


def without_dropout(task: Any) -> Any:
    """Switch off what draws from a device's own generator, which no two kinds of device share."""
    for module in task.modules.values():
        for part in module.modules():
            if isinstance(part, _DropoutNd):
                part.p = 0.0
            if isinstance(part, DropPath):
                part.drop_prob = 0.0
    return task


def trained(task: Any) -> Iterator[tuple[str, nn.Parameter]]:
    """Yield name and parameter of all that a step may move."""
    for key, module in task.modules.items():
        for name, parameter in module.named_parameters():
            if any(parameter is p for o in task.optimizers.values() for p in _parameters(o)):
                yield f"{key}.{name}", parameter


def _parameters(optimizer: torch.optim.Optimizer) -> list[nn.Parameter]:
    return [p for group in optimizer.param_groups for p in group["params"]]


def steps(
    case: Case, config: Any, task: Any, device: torch.device, count: int
) -> list[dict[str, float]]:
    """Take `count` steps and return the scalars of each."""
    taken = []
    for step in range(count):
        torch.manual_seed(step)
        batch = case.batch(config, step, device)
        values = take_step(task, batch, context_of(step, count, device))
        taken.append({name: float(value) for name, value in values.items()})
    return taken


def timed_step(
    case: Case, config: Any, task: Any, device: torch.device, total: int
) -> Callable[[int], Mapping[str, Any]]:
    """Return a function that takes a step on a batch that is on the device already."""
    ready = [case.batch(config, step, device) for step in range(4)]

    def take(step: int) -> Mapping[str, Any]:
        batch = ready[step % len(ready)]
        return take_step(task, batch, context_of(step, total, device))

    return take
