"""Settings of segmentation training and prediction."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from wsss.errors import UserError
from wsss.models.config import BackboneConfig
from wsss.models.deeplab_config import HeadConfig


def _check(condition: bool, key: str, value: object, expected: str) -> None:
    if not condition:
        raise UserError(f"{key} is {value}", where=key, expected=expected)


@dataclass(frozen=True)
class SegmentationConfig:
    """How DeepLab is trained."""

    labels: Literal["pseudo", "ground_truth"] = "pseudo"
    """What it learns from; `ground_truth` is the upper bound and is named in every table."""
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    """The network the head stands on."""
    head: HeadConfig = field(default_factory=HeadConfig)
    """The segmentation head."""
    epochs: int = 20
    """Passes over the training images."""
    batch_size: int = 8
    """Images a step."""
    crop_px: int = 321
    """Side of the square training crop."""
    scale_min: float = 0.5
    """Smallest factor of the random resizing."""
    scale_max: float = 1.5
    """Largest factor of the random resizing."""
    flip: bool = True
    """Mirror half of the images."""
    learning_rate: float = 0.005
    """Learning rate of the backbone at the first step."""
    head_lr_factor: float = 10.0
    """Learning rate of the head's weights, times `learning_rate`."""
    head_bias_lr_factor: float = 10.0
    """Learning rate of the head's biases, times `learning_rate`."""
    momentum: float = 0.9
    """Momentum of SGD."""
    weight_decay: float = 1e-4
    """Weight decay; none on biases and BatchNorm."""
    lr_power: float = 0.9
    """Power of the poly schedule."""
    freeze_batchnorm: bool = True
    """Keep the backbone's BatchNorm as it was loaded."""
    loss_scales: tuple[float, ...] = (1.0,)
    """Input scales with a loss each; with several, their maximum gets one too (DeepLabV2)."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Type of the network's arithmetic; auto: bfloat16 on a GPU."""
    seed: int = 0
    """Decides initialisation, order and augmentation."""

    def __post_init__(self) -> None:
        for key in ("epochs", "batch_size"):
            _check(getattr(self, key) >= 1, key, getattr(self, key), "at least 1")
        _check(self.crop_px >= 32, "crop_px", self.crop_px, "at least 32 pixels")
        _check(
            0 < self.scale_min <= self.scale_max,
            "scale_min",
            f"{self.scale_min} with scale_max {self.scale_max}",
            "0 < scale_min <= scale_max",
        )
        for key in ("learning_rate", "head_lr_factor", "head_bias_lr_factor"):
            _check(getattr(self, key) > 0, key, getattr(self, key), "above 0")
        for key in ("weight_decay", "lr_power"):
            _check(getattr(self, key) >= 0, key, getattr(self, key), "0 or more")
        _check(0 <= self.momentum < 1, "momentum", self.momentum, "0 <= momentum < 1")
        _check(
            bool(self.loss_scales)
            and self.loss_scales[0] == 1.0
            and all(0 < scale <= 1 for scale in self.loss_scales),
            "loss_scales",
            self.loss_scales,
            "1 first, then others in 0..1, such as [1, 0.75, 0.5]",
        )


@dataclass(frozen=True)
class CrfConfig:
    """The dense CRF after prediction; defaults as public DeepLabV2 codes have them."""

    gaussian_sxy: float = 1.0
    """Width of the smoothness kernel, in pixels."""
    gaussian_compat: float = 3.0
    """Weight of the smoothness kernel."""
    bilateral_sxy: float = 67.0
    """Spatial width of the appearance kernel, in pixels."""
    bilateral_srgb: float = 3.0
    """Colour width of the appearance kernel, in grey levels."""
    bilateral_compat: float = 4.0
    """Weight of the appearance kernel."""
    iterations: int = 10
    """Mean-field iterations."""

    def __post_init__(self) -> None:
        for key in ("gaussian_sxy", "bilateral_sxy", "bilateral_srgb"):
            _check(getattr(self, key) > 0, f"crf_settings.{key}", getattr(self, key), "above 0")
        for key in ("gaussian_compat", "bilateral_compat"):
            value = getattr(self, key)
            _check(value >= 0, f"crf_settings.{key}", value, "0 or more")
        _check(self.iterations >= 1, "crf_settings.iterations", self.iterations, "at least 1")


@dataclass(frozen=True)
class PredictionConfig:
    """How a trained model is applied to whole images."""

    split: str = "val"
    """Image set that is predicted and scored."""
    scales: tuple[float, ...] = (0.5, 0.75, 1.0, 1.25, 1.5)
    """Factors at which an image is seen; the probabilities are averaged."""
    mirror: bool = True
    """See every scale mirrored, too."""
    crf: bool = True
    """Refine with the dense CRF as well; both results are kept and scored."""
    crf_settings: CrfConfig = field(default_factory=CrfConfig)
    """The dense CRF."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Arithmetic of the network; `auto`: bfloat16 where the device has instructions for it."""

    def __post_init__(self) -> None:
        _check(
            bool(self.scales) and all(0 < scale <= 4 for scale in self.scales),
            "scales",
            self.scales,
            "at least one factor, each above 0 and at most 4",
        )
        _check(bool(self.split), "split", repr(self.split), "the name of an image set")
