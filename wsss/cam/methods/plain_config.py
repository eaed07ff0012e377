"""Settings of convolutional classifiers and their SGD, and of the plain one (`cam`)."""

from __future__ import annotations

from typing import Literal

from wsss.cam.config import TrainedSettings
from wsss.cam.methods.registry import METHODS, CamMethod
from wsss.models.config import BackboneConfig
from wsss.runtime.settings import BelowOne, NonNegative, Positive


class ConvolutionalSettings(TrainedSettings):
    """What a training of a convolutional network by SGD has."""

    backbone: BackboneConfig = BackboneConfig()
    """Network of the classifier (not of a transformer), and of the reconstructor's encoder."""
    head: Literal["paper", "official"] = "paper"
    """Classification head: one 1x1 convolution, or two with 256 channels between."""
    learning_rate: Positive = 0.01
    """Base learning rate of SGD, poly schedule."""
    lr_power: Positive = 0.9
    """Power of the poly schedule."""
    head_lr_factor: Positive = 10.0
    """Learning-rate factor of the classification heads."""
    momentum: BelowOne = 0.9
    """Momentum of SGD."""
    weight_decay: NonNegative = 5e-4
    """Weight decay; biases have none."""
    freeze_batchnorm: bool = True
    """Keep the pretrained BatchNorm as it is, statistics and affine parameters."""


class PlainSettings(ConvolutionalSettings):
    """Settings of the plain classifier."""

    method: Literal["cam"] = "cam"
    """The plain classifier."""


METHODS.register(
    CamMethod(
        name="cam",
        description="the plain classifier",
        settings=PlainSettings,
        task="wsss.cam.methods.plain:PlainMethod",
        classifier="wsss.cam.methods.plain:build_classifier",
        has_features=True,
    )
)
