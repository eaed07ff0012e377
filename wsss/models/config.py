"""Settings of the networks that every stage shares."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, Self

from pydantic import model_validator

from wsss.errors import UserError
from wsss.runtime.settings import Settings, impossible

LITE0 = "tf_efficientnet_lite0"
RESNET38 = "resnet38"


@dataclass(frozen=True)
class OwnBackbone:
    """A backbone that is none of timm's; its module, or a file that `plugins:` names, adds it.

    Attributes:
        name: What `backbone.name` says.
        build: What builds it, as `module:name`: from its settings and the file of its initial
            weights, or None, to a `wsss.models.backbones.Backbone`.
        output_strides: Which strides its last feature can have.
    """

    name: str
    build: str
    output_strides: tuple[int, ...]


OWN_BACKBONES: dict[str, OwnBackbone] = {}


def register_backbone(backbone: OwnBackbone) -> None:
    """Add a backbone.

    Raises:
        UserError: Another has its name.
    """
    if backbone.name in OWN_BACKBONES:
        raise UserError(
            f"there are two of the backbone '{backbone.name}'",
            where=backbone.build,
            fix="give one of them another name",
        )
    OWN_BACKBONES[backbone.name] = backbone


# The dilations of its stride are part of its published weights.
register_backbone(OwnBackbone(RESNET38, "wsss.models.resnet38:build", output_strides=(8,)))


class BackboneConfig(Settings):
    """Which convolutional network, its initial weights, and how fine its last feature is."""

    weights_option: ClassVar[str] = "weights-file"

    name: str = LITE0
    """`resnet38` or any convolutional network of timm."""
    weights: str = "package"
    """`package` (EfficientNet-Lite0's pip package), `none` (random), else a weight file's key."""
    output_stride: Literal[4, 8, 16, 32] = 16
    """Stride of the last feature; `resnet38` has 8 and nothing else."""
    final_conv: bool = False
    """Add the wide 1x1 convolution that EfficientNets end with: what their own classifier reads."""

    @property
    def code(self) -> str | None:
        """What builds it, as `module:name`, where it is none of timm's."""
        own = OWN_BACKBONES.get(self.name)
        return None if own is None else own.build

    @model_validator(mode="after")
    def _fits_the_network(self) -> Self:
        own = OWN_BACKBONES.get(self.name)
        if own is not None and self.output_stride not in own.output_strides:
            raise impossible(
                f"backbone.output_stride is {self.output_stride} for {self.name}",
                key="output_stride",
                expected=f"{' or '.join(map(str, own.output_strides))}: all that it can have",
            )
        if own is not None and self.final_conv:
            raise impossible(
                f"backbone.final_conv is true for {self.name}",
                key="final_conv",
                expected="false: its last feature is its classifier's already",
            )
        if self.weights == "package" and self.name != LITE0:
            raise impossible(
                f"backbone.weights is 'package' for {self.name}",
                key="weights",
                expected=f"a weight file's key or 'none'; only {LITE0} comes as a pip package",
            )
        if not self.weights:
            raise impossible(
                "backbone.weights is empty",
                key="weights",
                expected="'package', 'none' or a weight file's key",
            )
        return self
