"""Settings of ACR (CVPR 2023): any classifier against a reconstructor."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from wsss.cam.methods.adversary_settings import AcrSchedule, CollapseGuard, untrained_anchor
from wsss.cam.methods.plain_config import ConvolutionalSettings
from wsss.cam.methods.registry import METHODS, CamMethod
from wsss.runtime.settings import Count, Fraction, NonNegative, Positive, Settings, impossible

LossWeight = Annotated[NonNegative, "the adversarial terms carry their minus sign already"]


class AcrWeights(Settings):
    """Weights of the loss terms (ACR, CVPR 2023); the defaults are those for VOC 2012."""

    ru_class: LossWeight = 1.0
    """Reconstructor update: image labels, on the encoder's own classification head."""
    ru_full: LossWeight = 0.2
    """Reconstructor update: the image from its whole feature."""
    ru_target: LossWeight = 0.5
    """Reconstructor update: the non-target side from the target segment."""
    ru_nontarget: LossWeight = 0.3
    """Reconstructor update: the target side from the non-target segment."""
    cu_class: LossWeight = 1.0
    """Classifier update: image labels."""
    cu_target: LossWeight = 0.8
    """Classifier update, adversarial: the non-target side from the target segment."""
    cu_nontarget: LossWeight = 0.3
    """Classifier update, adversarial: the target side from the non-target segment."""


class AcrConfig(Settings):
    """The adversarial reconstructor: its size, the loss weights, stochastic remnant feeding."""

    preset: Literal["paper", "official"] = "paper"
    """Decoder of the paper (LeakyReLU up, bilinear + 1x1) or of the released code (ReLU, nearest
    + 3x3)."""
    weights: AcrWeights = AcrWeights()
    """Weights of the loss terms."""
    schedule: AcrSchedule = AcrSchedule()
    """Which network trains when."""
    balance: Positive | None = None
    """Bound on the norm of the adversarial gradient at the CAM, relative to that of the image
    labels' gradient there, both of the whole batch; what exceeds it is scaled down. null: none."""
    guard: CollapseGuard = CollapseGuard()
    """When a training counts as collapsed, and stops."""
    anchor: NonNegative = 0.0
    """Weight of OC-CSE's erasing loss: a frozen, trained classifier may not find the target in
    I * (1 - A_t), and shall find the other labels; 0: none."""
    anchor_from: str | None = None
    """The run whose classifier is the frozen one; null: this training's own, as it is when both
    networks begin to learn (`schedule.classifier_epochs`)."""
    srf: bool = True
    """Stochastic remnant feeding; off leaves the segments as they are (an ablation)."""
    q_initial: Fraction = 0.8
    """Probability, in the first epoch, that a grid cell feeds the other side's remnants."""
    q_decay: NonNegative = 0.01
    """What that probability loses each epoch, down to 0."""
    grid_min: Count = 8
    """Fewest cells along a side of the remnant grid; drawn anew every step."""
    grid_max: Count = 12
    """Most cells along a side of the remnant grid."""
    decoder_depth: Annotated[int, Field(ge=2, le=10)] = 5
    """Halvings of the decoder; the decoded side must be a multiple of 2 to this power."""
    decoder_width: Count = 32
    """Channels of the decoder's first block; doubled each block up to eight times this."""
    decoder_precision: Literal["same", "float32", "bfloat16"] = "same"
    """Arithmetic of the decoder; `same`: the other networks'. On a CPU bfloat16 pays for its dense
    convolutions, but not for the depthwise ones of a light backbone."""
    decode_px: Count | None = 128
    """Side at which the image is reconstructed; null: the crop's."""
    feature_levels: tuple[Annotated[int, Field(ge=0)], ...] = (1, 2, 4)
    """Backbone features gathered for the decoder, counted from the shallowest, 0."""
    feature_channels: tuple[Count, ...] = (16, 32, 64)
    """Channels gathered from each of these features."""
    transposed_lr_factor: Positive = 10.0
    """Learning-rate factor of the decoder's transposed convolutions."""
    decoder_lr_factor: Positive = 1.0
    """Learning-rate factor of the decoder's other layers and of those that gather its feature;
    a short training, with the low rate that a pretrained network bears, wants more than 1."""

    @classmethod
    def idle(cls, values: Mapping[str, Any]) -> Mapping[str, str]:
        """What remnants and the frozen classifier are like matters only where there are any."""
        idle: dict[str, str] = {}
        if not values.get("srf", True):
            remnants = ("q_initial", "q_decay", "grid_min", "grid_max")
            idle |= dict.fromkeys(remnants, "acr.srf is false")
        if not values.get("anchor", 0.0):
            idle["anchor_from"] = "acr.anchor is 0"
        return idle

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.grid_min > self.grid_max:
            raise impossible(
                f"acr.grid_min is {self.grid_min} and acr.grid_max {self.grid_max}",
                key="grid_min",
                expected="1 <= grid_min <= grid_max",
            )
        if len(self.feature_levels) != len(self.feature_channels) or not self.feature_levels:
            raise impossible(
                f"acr.feature_levels has {len(self.feature_levels)} entries and "
                f"acr.feature_channels {len(self.feature_channels)}",
                key="feature_levels",
                expected="one number of channels for each level, and at least one level",
            )
        return self

    def q(self, epoch: int) -> float:
        """Return the probability of feeding remnants in `epoch`, counted from 0.

        It falls with the epochs in which the reconstructor learns.
        """
        learned = max(0, epoch - self.schedule.classifier_epochs)
        return max(0.0, self.q_initial - self.q_decay * learned)


class AdversarialSettings(ConvolutionalSettings):
    """What a training against a reconstructor has."""

    acr: AcrConfig = AcrConfig()
    """The reconstructor of `acr` and `acr-vit`."""

    @property
    def anchor_run(self) -> str | None:
        """The run whose trained classifier stays as it is beside the training."""
        return self.acr.anchor_from if self.acr.anchor else None

    @property
    def decoded_px(self) -> int:
        """Side at which ACR reconstructs."""
        return self.crop_px if self.acr.decode_px is None else self.acr.decode_px

    @model_validator(mode="after")
    def _phases_fit_the_training(self) -> Self:
        schedule = self.acr.schedule
        if schedule.first_joint_epoch >= self.epochs:
            raise impossible(
                f"acr.schedule has {schedule.classifier_epochs} epochs of the classifier alone and "
                f"{schedule.reconstructor_epochs} of the reconstructor alone, of {self.epochs} in "
                "all",
                key="acr.schedule",
                expected="fewer than cam.epochs together: the rest is for both",
                fix=f"raise cam.epochs above {schedule.first_joint_epoch}, or shorten the phases",
            )
        if self.acr.anchor and self.acr.anchor_from is None and not schedule.classifier_epochs:
            raise untrained_anchor(self.acr.anchor, key="acr.anchor")
        return self

    @model_validator(mode="after")
    def _decoder_can_halve(self) -> Self:
        depth, side = self.acr.decoder_depth, self.decoded_px
        if side % 2**depth:
            key = "acr.decode_px" if self.acr.decode_px is not None else "crop_px"
            sizes = ", ".join(str(2**depth * count) for count in range(1, 5))
            depths = [d for d in range(2, 11) if side % 2**d == 0]
            raise impossible(
                f"cam.{key} is {side}, which cannot be halved {depth} times (acr.decoder_depth)",
                key=key,
                expected=f"a multiple of {2**depth}: {sizes}, ...",
                fix=f"set cam.{key} to one of these"
                + (f", or acr.decoder_depth to at most {max(depths)}" if depths else ""),
            )
        return self


class AcrSettings(AdversarialSettings):
    """Settings of ACR with a convolutional classifier."""

    method: Literal["acr"] = "acr"
    """Classifier and reconstructor against each other."""


METHODS.register(
    CamMethod(
        name="acr",
        description="against a reconstructor",
        settings=AcrSettings,
        task="wsss.cam.methods.acr:AcrMethod",
        classifier="wsss.cam.methods.plain:build_classifier",
        has_features=True,
        has_reconstructor=True,
    )
)
