"""Settings of the three IRN stages (IRN, CVPR 2019, and its public implementation)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from wsss.errors import UserError
from wsss.models.config import BackboneConfig


def _check(condition: bool, key: str, value: object, expected: str) -> None:
    if not condition:
        raise UserError(f"{key} is {value}", where=key, expected=expected)


@dataclass(frozen=True)
class LabelCrfConfig:
    """The dense CRF over confident labels; all values as in IRN's public code."""

    gt_prob: float = 0.7
    """Probability that a pixel's own label is right, in the unary term."""
    gaussian_sxy: float = 3.0
    """Width of the smoothness kernel, in pixels."""
    gaussian_compat: float = 3.0
    """Weight of the smoothness kernel."""
    bilateral_sxy: float = 50.0
    """Spatial width of the appearance kernel, in pixels."""
    bilateral_srgb: float = 5.0
    """Colour width of the appearance kernel, in grey levels."""
    bilateral_compat: float = 10.0
    """Weight of the appearance kernel."""
    iterations: int = 10
    """Mean-field iterations."""

    def __post_init__(self) -> None:
        _check(0 < self.gt_prob < 1, "labels.crf.gt_prob", self.gt_prob, "between 0 and 1")
        for key in ("gaussian_sxy", "bilateral_sxy", "bilateral_srgb"):
            _check(getattr(self, key) > 0, f"labels.crf.{key}", getattr(self, key), "above 0")
        for key in ("gaussian_compat", "bilateral_compat"):
            _check(getattr(self, key) >= 0, f"labels.crf.{key}", getattr(self, key), "0 or more")
        _check(self.iterations >= 1, "labels.crf.iterations", self.iterations, "1 or more")


@dataclass(frozen=True)
class LabelsConfig:
    """Confident labels from CAMs: what IRNet learns from."""

    foreground_threshold: float = 0.30
    """Background score above which a pixel is surely object (IRN: 0.30; a later paper: 0.35)."""
    background_threshold: float = 0.05
    """Background score below which a pixel is surely background (IRN: 0.05; later: 0.17)."""
    crf: LabelCrfConfig = field(default_factory=LabelCrfConfig)
    """Refinement of both label maps."""

    def __post_init__(self) -> None:
        _check(
            0 < self.background_threshold <= self.foreground_threshold < 1,
            "labels.background_threshold",
            f"{self.background_threshold} with foreground_threshold {self.foreground_threshold}",
            "0 < background_threshold <= foreground_threshold < 1",
        )


@dataclass(frozen=True)
class IrnConfig:
    """Training of IRNet, the network that finds boundaries between classes."""

    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    """Frozen network the branches stand on (IRN: ResNet-50, last stage with stride 1)."""
    dilation: bool = True
    """Keep the dilation that timm puts in place of a stride; IRN's ResNet-50 has none (false)."""
    epochs: int = 3
    """Passes over the training images (IRN: 3)."""
    batch_size: int = 32
    """Images a step (IRN: 32)."""
    crop_px: int = 512
    """Side of the square training crop (IRN: 512)."""
    scale_min: float = 0.5
    """Smallest factor of the random resizing (IRN: 0.5)."""
    scale_max: float = 1.5
    """Largest factor of the random resizing (IRN: 1.5)."""
    flip: bool = True
    """Mirror half of the images (IRN does)."""
    radius: int = 10
    """Pairs of pixels of the stride-4 map closer than this are compared (IRN: 10)."""
    learning_rate: float = 0.1
    """Learning rate of the edge branch at the first step (IRN: 0.1)."""
    displacement_lr_factor: float = 10.0
    """Learning rate of the displacement branch, times `learning_rate` (IRN: 10)."""
    momentum: float = 1e-4
    """Momentum of SGD. IRN's code hands its weight decay over as momentum, and its learning rate
    was chosen so; 0.9 would make every step ten times as long."""
    weight_decay: float = 1e-4
    """Weight decay (IRN: 1e-4)."""
    lr_power: float = 0.9
    """Power of the poly schedule (IRN: 0.9)."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Arithmetic of the network; losses are float32 always."""
    seed: int = 0
    """Decides initial weights, order and augmentation."""

    def __post_init__(self) -> None:
        for key in ("epochs", "batch_size"):
            _check(getattr(self, key) >= 1, f"irn.{key}", getattr(self, key), "1 or more")
        _check(self.radius >= 2, "irn.radius", self.radius, "2 or more")
        smallest = 4 * (2 * self.radius - 1)
        _check(
            self.crop_px >= smallest,
            "irn.crop_px",
            self.crop_px,
            f"{smallest} or more: with radius {self.radius}, smaller crops leave no pairs",
        )
        _check(
            0 < self.scale_min <= self.scale_max,
            "irn.scale_min",
            f"{self.scale_min} with scale_max {self.scale_max}",
            "0 < scale_min <= scale_max",
        )
        for key in ("learning_rate", "displacement_lr_factor", "lr_power"):
            _check(getattr(self, key) > 0, f"irn.{key}", getattr(self, key), "above 0")
        _check(0 <= self.momentum < 1, "irn.momentum", self.momentum, "0 <= momentum < 1")
        _check(self.weight_decay >= 0, "irn.weight_decay", self.weight_decay, "0 or more")


@dataclass(frozen=True)
class PseudoLabelsConfig:
    """Random walk of the CAMs along IRNet's affinities, into one label map an image."""

    radius: int = 5
    """A step of the walk goes to pixels of the stride-4 map closer than this (IRN: 5)."""
    beta: float = 10.0
    """Exponent of the affinities: larger, and edges block more (IRN: 10)."""
    steps: int = 256
    """Steps of the walk (IRN: 2**8)."""
    background: float = 0.25
    """Background score (IRN: 0.25; papers: 0.22 to 0.28)."""
    mirror: bool = True
    """Average the edge logits with the mirrored image's (IRN does)."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Arithmetic of the network; `auto`: bfloat16 where the device has instructions for it. The
    walk is float32 always."""

    def __post_init__(self) -> None:
        _check(self.radius >= 2, "pseudo_labels.radius", self.radius, "2 or more")
        _check(self.beta > 0, "pseudo_labels.beta", self.beta, "above 0")
        _check(self.steps >= 1, "pseudo_labels.steps", self.steps, "1 or more")
        _check(0 <= self.background <= 1, "pseudo_labels.background", self.background, "0 to 1")
