"""Settings of the networks that every stage shares."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from pydantic import model_validator

from wsss.runtime.settings import Settings, impossible

LITE0 = "tf_efficientnet_lite0"
RESNET38 = "resnet38"


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

    @model_validator(mode="after")
    def _fits_the_network(self) -> Self:
        if self.name == RESNET38 and self.output_stride != 8:
            raise impossible(
                f"backbone.output_stride is {self.output_stride} for resnet38",
                key="output_stride",
                expected="8: the network's dilations are part of its published weights",
            )
        if self.name == RESNET38 and self.final_conv:
            raise impossible(
                "backbone.final_conv is true for resnet38",
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
