"""Settings of segmentation training and prediction."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from wsss.data.crf_config import CrfConfig
from wsss.models.config import BackboneConfig
from wsss.models.heads.deeplab_config import V3PlusSettings
from wsss.models.heads.registry import HEADS, HeadSettings
from wsss.runtime.settings import (
    BelowOne,
    Count,
    Fraction,
    NonNegative,
    Number,
    Positive,
    Precision,
    Seed,
    Settings,
    impossible,
)


class SegmentationConfig(Settings):
    """How DeepLab is trained."""

    labels: Literal["pseudo", "ground_truth", "mixed", "predicted"] = "pseudo"
    """What it learns from; `mixed`: a mask where there is one, else the pseudo-label;
    `ground_truth`, masks alone, is the upper bound; `predicted`: another run's predictions (see
    `self_labels`). Every table names it."""
    backbone: BackboneConfig = BackboneConfig()
    """The network the head stands on."""
    head: Annotated[HeadSettings, HEADS] = V3PlusSettings()
    """The segmentation head."""
    epochs: Count = 20
    """Passes over the training images."""
    batch_size: Count = 8
    """Images a step."""
    crop_px: Annotated[int, Field(ge=32)] = 321
    """Side of the square training crop."""
    scale_min: Number = 0.5
    """Smallest factor of the random resizing."""
    scale_max: Number = 1.5
    """Largest factor of the random resizing."""
    flip: bool = True
    """Mirror half of the images."""
    augment: bool = True
    """Resize, mirror and crop at random; false: each image whole, reduced to the crop where it is
    larger, so that a frozen transformer's features can be kept (`compute.feature_cache_gb`)."""
    learning_rate: Positive = 0.005
    """Learning rate of the backbone at the first step."""
    head_lr_factor: Positive = 10.0
    """Learning rate of the head's weights, times `learning_rate`."""
    head_bias_lr_factor: Positive = 10.0
    """Learning rate of the head's biases, times `learning_rate`."""
    momentum: BelowOne = 0.9
    """Momentum of SGD."""
    weight_decay: NonNegative = 1e-4
    """Weight decay; none on biases and BatchNorm."""
    lr_power: NonNegative = 0.9
    """Power of the poly schedule."""
    freeze_batchnorm: bool = True
    """Keep the backbone's BatchNorm as it was loaded."""
    label_smoothing: BelowOne = 0.0
    """Share of a pixel's label that goes to all labels alike."""
    ema: BelowOne = 0.0
    """Decay, a step, of an average of the weights that becomes the model in their place (0.99: of
    about the last hundred steps); 0: the last weights themselves."""
    loss_scales: tuple[Number, ...] = (1.0,)
    """Input scales with a loss each; with several, their maximum gets one too (DeepLabV2)."""
    precision: Precision = "auto"
    """Type of the network's arithmetic; auto: bfloat16 on a GPU."""
    seed: Seed = 0
    """Decides initialisation, order and augmentation."""

    @classmethod
    def idle(cls, values: Mapping[str, Any]) -> Mapping[str, str]:
        """What is drawn at random matters only where something is."""
        drawn = ("scale_min", "scale_max", "flip")
        reason = "segmentation.augment is false"
        return {} if values.get("augment", True) else dict.fromkeys(drawn, reason)

    @model_validator(mode="after")
    def _scales_are_possible(self) -> Self:
        if not 0 < self.scale_min <= self.scale_max:
            raise impossible(
                f"scale_min is {self.scale_min} with scale_max {self.scale_max}",
                key="scale_min",
                expected="0 < scale_min <= scale_max",
            )
        scales = self.loss_scales
        if not scales or scales[0] != 1.0 or not all(0 < scale <= 1 for scale in scales):
            raise impossible(
                f"loss_scales is {scales}",
                key="loss_scales",
                expected="1 first, then others in 0..1, such as [1, 0.75, 0.5]",
            )
        return self


class ViewSettings(Settings):
    """How a trained model sees a whole image."""

    scales: Annotated[tuple[Annotated[Number, Field(gt=0, le=4)], ...], Field(min_length=1)] = (
        *(0.5, 0.75, 1.0, 1.25, 1.5),
    )
    """Factors at which an image is seen; the probabilities are averaged."""
    mirror: bool = True
    """See every scale mirrored, too."""
    long_side_limit_px: Count | None = None
    """Pictures with a longer side are reduced to it before they are scaled, and their probabilities
    enlarged; null: none is. A transformer's time grows with the fourth power of the side."""
    window_px: Annotated[int, Field(ge=32)] | None = None
    """Side of the windows in which larger views are seen, overlapping by a third or more, their
    logits averaged; for transformers, what they saw in training (`segmentation.crop_px`); null:
    whole."""
    precision: Precision = "auto"
    """Arithmetic of the network; `auto`: bfloat16 where the device has instructions for it."""


class PredictionConfig(ViewSettings):
    """How a trained model is applied to whole images."""

    split: Annotated[str, Field(min_length=1)] = "val"
    """Image set that is predicted and scored."""
    crf: bool = True
    """Refine with the dense CRF as well; both results are kept and scored."""
    crf_settings: CrfConfig = CrfConfig()
    """The dense CRF."""

    @classmethod
    def idle(cls, values: Mapping[str, Any]) -> Mapping[str, str]:
        """The CRF's settings matter only where there is a CRF."""
        return {} if values.get("crf", True) else {"crf_settings": "prediction.crf is false"}


class SelfLabelsConfig(ViewSettings):
    """Labels of the training images by a trained model, for another round of segmentation.

    Used where `segmentation.labels` is `predicted`.
    """

    model_from: str | None = None
    """The run whose segmentation model predicts them."""
    background_weight: Positive = 1.0
    """What background's probability is multiplied with, before those of it and of the image's tags
    are divided by their sum."""
    crf: bool = True
    """Refine these probabilities with the dense CRF."""
    crf_settings: CrfConfig = CrfConfig()
    """The dense CRF."""
    confidence: Fraction = 0.7
    """A pixel whose best label has less than this probability, after the CRF, becomes 255; 0: none
    does."""

    @classmethod
    def idle(cls, values: Mapping[str, Any]) -> Mapping[str, str]:
        """The CRF's settings matter only where there is a CRF."""
        return {} if values.get("crf", True) else {"crf_settings": "self_labels.crf is false"}
