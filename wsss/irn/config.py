"""Settings of the three IRN stages (IRN, CVPR 2019, and its public implementation)."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from wsss.data.crf_config import LabelCrfConfig
from wsss.irn.label_methods import LabelSettings
from wsss.maps.background import AUTO, Background, Score, threshold_of
from wsss.models.config import BackboneConfig
from wsss.runtime.settings import (
    BelowOne,
    Count,
    NonNegative,
    Number,
    Positive,
    Precision,
    Seed,
    Settings,
    impossible,
)

# Pixels closer than this are neighbours; closer than 2 is the pixel alone.
Radius = Annotated[int, Field(ge=2)]


class LabelsConfig(Settings):
    """Confident labels from CAMs: what IRNet learns from."""

    foreground_threshold: Score = AUTO
    """Background score above which a pixel is surely object (IRN: 0.30; a later paper: 0.35), or
    `auto`: by the score that is chosen without masks, at 1.5 times its odds."""
    background_threshold: Score = AUTO
    """Background score below which a pixel is surely background (IRN: 0.05; later: 0.17), or
    `auto`: likewise, at 0.4 times its odds."""
    crf: LabelCrfConfig = LabelCrfConfig()
    """Refinement of both label maps."""

    @model_validator(mode="after")
    def _thresholds_are_apart(self) -> Self:
        # What `auto` stands for is known with the maps; then this is asked again.
        low = 1e-9 if self.background_threshold == AUTO else self.background_threshold
        high = 1 - 1e-9 if self.foreground_threshold == AUTO else self.foreground_threshold
        if not 0 < low <= high < 1:
            raise impossible(
                f"labels.background_threshold is {self.background_threshold} with "
                f"foreground_threshold {self.foreground_threshold}",
                key="background_threshold",
                expected="0 < background_threshold <= foreground_threshold < 1",
            )
        return self

    @property
    def needs_chosen(self) -> bool:
        """Whether one of them is chosen from the maps."""
        return AUTO in (self.foreground_threshold, self.background_threshold)


class IrnConfig(Settings):
    """Training of IRNet, the network that finds boundaries between classes."""

    backbone: BackboneConfig = BackboneConfig()
    """Frozen network the branches stand on (IRN: ResNet-50, last stage with stride 1)."""
    dilation: bool = True
    """Keep the dilation that timm puts in place of a stride; IRN's ResNet-50 has none (false)."""
    epochs: Count = 3
    """Passes over the training images (IRN: 3)."""
    batch_size: Count = 32
    """Images a step (IRN: 32)."""
    crop_px: int = 512
    """Side of the square training crop (IRN: 512)."""
    scale_min: Number = 0.5
    """Smallest factor of the random resizing (IRN: 0.5)."""
    scale_max: Number = 1.5
    """Largest factor of the random resizing (IRN: 1.5)."""
    flip: bool = True
    """Mirror half of the images (IRN does)."""
    radius: Radius = 10
    """Pairs of pixels of the stride-4 map closer than this are compared (IRN: 10)."""
    learning_rate: Positive = 0.1
    """Learning rate of the edge branch at the first step (IRN: 0.1)."""
    displacement_lr_factor: Positive = 10.0
    """Learning rate of the displacement branch, times `learning_rate` (IRN: 10)."""
    momentum: BelowOne = 1e-4
    """Momentum of SGD. IRN's code hands its weight decay over as momentum, and its learning rate
    was chosen so; 0.9 would make every step ten times as long."""
    weight_decay: NonNegative = 1e-4
    """Weight decay (IRN: 1e-4)."""
    lr_power: Positive = 0.9
    """Power of the poly schedule (IRN: 0.9)."""
    precision: Precision = "auto"
    """Arithmetic of the network; losses are float32 always."""
    seed: Seed = 0
    """Decides initial weights, order and augmentation."""

    @model_validator(mode="after")
    def _crops_have_pairs(self) -> Self:
        smallest = 4 * (2 * self.radius - 1)
        if self.crop_px < smallest:
            raise impossible(
                f"irn.crop_px is {self.crop_px}",
                key="crop_px",
                expected=f"{smallest} or more: with radius {self.radius}, smaller crops leave no "
                "pairs",
            )
        if not 0 < self.scale_min <= self.scale_max:
            raise impossible(
                f"irn.scale_min is {self.scale_min} with scale_max {self.scale_max}",
                key="scale_min",
                expected="0 < scale_min <= scale_max",
            )
        return self


class PseudoLabelsConfig(LabelSettings):
    """Random walk of the CAMs along IRNet's affinities, into one label map an image."""

    method: Literal["irn"] = "irn"
    """The random walk along IRNet's affinities."""
    radius: Radius = 5
    """A step of the walk goes to pixels of the stride-4 map closer than this (IRN: 5)."""
    beta: Positive = 10.0
    """Exponent of the affinities: larger, and edges block more (IRN: 10)."""
    steps: Count = 256
    """Steps of the walk (IRN: 2**8)."""
    background: Background = AUTO
    """Background score (IRN: 0.25; papers: 0.22 to 0.28), or `{alpha: A}` for (1 - the largest
    class)^A, or `auto`: chosen from a sample of walked maps, without masks."""
    mirror: bool = True
    """Average the edge logits with the mirrored image's (IRN does)."""
    precision: Precision = "auto"
    """Arithmetic of the network; `auto`: bfloat16 where the device has instructions for it. The
    walk is float32 always."""

    @property
    def score_threshold(self) -> float:
        """The background score at which the walked maps are the labels."""
        return threshold_of(self.background)
