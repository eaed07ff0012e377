"""Settings of CAM training and of CAM export."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from wsss.cam.vit_config import VitConfig
from wsss.errors import UserError
from wsss.models.config import BackboneConfig

# Methods whose classifier is a vision transformer.
TRANSFORMER_METHODS = ("acr-vit", "mct")


def fitting_sides_px(depth: int, count: int = 4) -> tuple[int, ...]:
    """Return the smallest sides that a decoder of `depth` halvings takes."""
    return tuple(2**depth * (i + 1) for i in range(count))


@dataclass(frozen=True)
class AcrWeights:
    """Weights of the loss terms (ACR, CVPR 2023); the defaults are those for VOC 2012."""

    ru_class: float = 1.0
    """Reconstructor update: image labels, on the encoder's own classification head."""

    ru_full: float = 0.2
    """Reconstructor update: the image from its whole feature."""

    ru_target: float = 0.5
    """Reconstructor update: the non-target side from the target segment."""

    ru_nontarget: float = 0.3
    """Reconstructor update: the target side from the non-target segment."""

    cu_class: float = 1.0
    """Classifier update: image labels."""

    cu_target: float = 0.8
    """Classifier update, adversarial: the non-target side from the target segment."""

    cu_nontarget: float = 0.3
    """Classifier update, adversarial: the target side from the non-target segment."""

    def __post_init__(self) -> None:
        for name in self.__dataclass_fields__:
            if getattr(self, name) < 0:
                raise UserError(
                    f"acr.weights.{name} is {getattr(self, name)}",
                    expected="0 or more: the adversarial terms carry their minus sign already",
                )


@dataclass(frozen=True)
class AcrConfig:
    """The adversarial reconstructor: its size, the loss weights, stochastic remnant feeding."""

    preset: Literal["paper", "official"] = "paper"
    """Decoder of the paper (LeakyReLU up, bilinear + 1x1) or of the released code (ReLU, nearest
    + 3x3)."""

    weights: AcrWeights = field(default_factory=AcrWeights)
    """Weights of the loss terms."""

    srf: bool = True
    """Stochastic remnant feeding; off leaves the segments as they are (an ablation)."""

    q_initial: float = 0.8
    """Probability, in the first epoch, that a grid cell feeds the other side's remnants."""

    q_decay: float = 0.01
    """What that probability loses each epoch, down to 0."""

    grid_min: int = 8
    """Fewest cells along a side of the remnant grid; drawn anew every step."""

    grid_max: int = 12
    """Most cells along a side of the remnant grid."""

    decoder_depth: int = 5
    """Halvings of the decoder; the decoded side must be a multiple of 2 to this power."""

    decoder_width: int = 32
    """Channels of the decoder's first block; doubled each block up to eight times this."""

    decoder_precision: Literal["same", "float32", "bfloat16"] = "same"
    """Arithmetic of the decoder; `same`: the other networks'. On a CPU bfloat16 pays for its dense
    convolutions, but not for the depthwise ones of a light backbone."""

    decode_px: int | None = 128
    """Side at which the image is reconstructed; null: the crop's."""

    feature_levels: tuple[int, ...] = (1, 2, 4)
    """Backbone features gathered for the decoder, counted from the shallowest, 0."""

    feature_channels: tuple[int, ...] = (16, 32, 64)
    """Channels gathered from each of these features."""

    transposed_lr_factor: float = 10.0
    """Learning-rate factor of the decoder's transposed convolutions."""

    decoder_lr_factor: float = 1.0
    """Learning-rate factor of the decoder's other layers and of those that gather its feature;
    a short training, with the low rate that a pretrained network bears, wants more than 1."""

    def __post_init__(self) -> None:
        if not 0 <= self.q_initial <= 1:
            raise UserError(f"acr.q_initial is {self.q_initial}", expected="a probability, 0 to 1")
        if self.q_decay < 0:
            raise UserError(f"acr.q_decay is {self.q_decay}", expected="0 or more")
        if not 1 <= self.grid_min <= self.grid_max:
            raise UserError(
                f"acr.grid_min is {self.grid_min} and acr.grid_max {self.grid_max}",
                expected="1 <= grid_min <= grid_max",
            )
        if not 2 <= self.decoder_depth <= 10:
            raise UserError(f"acr.decoder_depth is {self.decoder_depth}", expected="2 to 10")
        if self.decoder_width < 1:
            raise UserError(f"acr.decoder_width is {self.decoder_width}", expected="1 or more")
        if len(self.feature_levels) != len(self.feature_channels) or not self.feature_levels:
            raise UserError(
                f"acr.feature_levels has {len(self.feature_levels)} entries and "
                f"acr.feature_channels {len(self.feature_channels)}",
                expected="one number of channels for each level, and at least one level",
            )
        if min(self.feature_levels) < 0 or min(self.feature_channels) < 1:
            raise UserError(
                f"acr.feature_levels is {list(self.feature_levels)} and acr.feature_channels "
                f"{list(self.feature_channels)}",
                expected="levels from 0, channels from 1",
            )
        for name in ("transposed_lr_factor", "decoder_lr_factor"):
            if getattr(self, name) <= 0:
                raise UserError(f"acr.{name} is {getattr(self, name)}", expected="above 0")

    def q(self, epoch: int) -> float:
        """Return the probability of feeding remnants in `epoch`, counted from 0."""
        return max(0.0, self.q_initial - self.q_decay * epoch)


@dataclass(frozen=True)
class CamConfig:
    """Training of the classifier whose CAMs become seeds."""

    method: str = "acr"
    """`acr`, `cam` (the plain classifier), `acr-vit`, `mct` (the same two with a transformer)."""

    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    """Network of the classifier (not of a transformer), and of the reconstructor's encoder."""

    vit: VitConfig = field(default_factory=VitConfig)
    """The classifier of `acr-vit` and `mct`, and how it is optimised."""

    head: Literal["paper", "official"] = "paper"
    """Classification head: one 1x1 convolution, or two with 256 channels between."""

    epochs: int = 6
    """Passes over the training images."""

    batch_size: int = 8
    """Images a step."""

    crop_px: int = 256
    """Side of the square training crops."""

    long_side_min_px: int = 384
    """Smallest length the image's long side is resized to before the crop."""

    long_side_max_px: int = 512
    """Largest length the image's long side is resized to before the crop."""

    rand_augment_operations: int = 0
    """RandAugment: operations an image, before the crop (MCTformer: 2); 0: none."""

    rand_augment_magnitude: int = 9
    """RandAugment: strength of the operations, 0 to 30 (MCTformer: 9)."""

    erasing: float = 0.0
    """Probability that a rectangle of the crop becomes noise (MCTformer: 0.25)."""

    learning_rate: float = 0.01
    """Base learning rate of SGD, poly schedule."""

    lr_power: float = 0.9
    """Power of the poly schedule."""

    head_lr_factor: float = 10.0
    """Learning-rate factor of the classification heads."""

    momentum: float = 0.9
    """Momentum of SGD."""

    weight_decay: float = 5e-4
    """Weight decay; biases have none."""

    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Arithmetic of the networks; losses are float32 always."""

    freeze_batchnorm: bool = True
    """Keep the pretrained BatchNorm as it is, statistics and affine parameters."""

    seed: int = 0
    """Decides initial weights, order, augmentation and every draw."""

    acr: AcrConfig = field(default_factory=AcrConfig)
    """The reconstructor of `acr` and `acr-vit`."""

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "crop_px"):
            if getattr(self, name) < 1:
                raise UserError(f"cam.{name} is {getattr(self, name)}", expected="1 or more")
        for name in ("learning_rate", "head_lr_factor", "lr_power"):
            if getattr(self, name) <= 0:
                raise UserError(f"cam.{name} is {getattr(self, name)}", expected="above 0")
        if not 0 <= self.momentum < 1:
            raise UserError(f"cam.momentum is {self.momentum}", expected="0 to below 1")
        if self.weight_decay < 0:
            raise UserError(f"cam.weight_decay is {self.weight_decay}", expected="0 or more")
        if not 1 <= self.long_side_min_px <= self.long_side_max_px:
            raise UserError(
                f"cam.long_side_min_px is {self.long_side_min_px} and cam.long_side_max_px "
                f"{self.long_side_max_px}",
                expected="1 <= long_side_min_px <= long_side_max_px",
            )
        if self.rand_augment_operations < 0 or not 0 <= self.rand_augment_magnitude <= 30:
            raise UserError(
                f"cam.rand_augment_operations is {self.rand_augment_operations} and "
                f"cam.rand_augment_magnitude {self.rand_augment_magnitude}",
                expected="0 or more operations, and a magnitude of 0 to 30",
            )
        if not 0 <= self.erasing <= 1:
            raise UserError(f"cam.erasing is {self.erasing}", expected="a probability, 0 to 1")
        if self.method.startswith("acr"):
            self._check_decoded_side()
        if self.uses_transformer:
            self.vit.check_schedule(self.epochs, self.batch_size)

    @property
    def uses_transformer(self) -> bool:
        """Whether the classifier is a transformer, which has patch attention to refine with."""
        return self.method in TRANSFORMER_METHODS

    def idle_networks(self) -> tuple[str, ...]:
        """Return the keys of the networks that the method does not build."""
        if not self.uses_transformer:
            return ("vit",)
        return () if self.method.startswith("acr") else ("backbone",)

    @property
    def decoded_px(self) -> int:
        """Side at which ACR reconstructs."""
        return self.acr.decode_px or self.crop_px

    def _check_decoded_side(self) -> None:
        depth, side = self.acr.decoder_depth, self.decoded_px
        if side % 2**depth or side < 1:
            key = "cam.acr.decode_px" if self.acr.decode_px is not None else "cam.crop_px"
            sizes = ", ".join(str(px) for px in fitting_sides_px(depth))
            depths = [d for d in range(2, 11) if side % 2**d == 0]
            raise UserError(
                f"{key} is {side}, which cannot be halved {depth} times (acr.decoder_depth)",
                expected=f"a multiple of {2**depth}: {sizes}, ...",
                fix=f"set {key} to one of these"
                + (f", or acr.decoder_depth to at most {max(depths)}" if depths else ""),
            )


@dataclass(frozen=True)
class ExportConfig:
    """Multi-scale, mirrored CAM inference into the CAM store."""

    scales: tuple[float, ...] = (0.5, 1.0, 1.5, 2.0)
    """Sizes of the image the CAMs are summed over, relative to its own."""

    mirror: bool = True
    """Add the mirror image of each size."""

    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Arithmetic of the network; `auto`: bfloat16 where the device has instructions for it."""

    refine: Literal["none", "patch-attention"] = "none"
    """`patch-attention`: spread each CAM along a transformer's attention between patches."""

    refine_from: str | None = None
    """The run whose transformer gives that attention; null: the CAMs' own, if it is one."""

    def __post_init__(self) -> None:
        if not self.scales or min(self.scales) <= 0:
            raise UserError(
                f"export.scales is {list(self.scales)}", expected="at least one number above 0"
            )
