"""IRNet: class boundaries and displacement fields from a frozen backbone (IRN, CVPR 2019, 4.1).

The layout is that of the public ResNet-50 implementation, stated so that any feature pyramid fits:
1x1 convolutions with GroupNorm bring each level to a common width, everything meets at stride 4.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wsss.errors import UserError
from wsss.models.backbones import Backbone, freeze_batchnorm
from wsss.models.weights import LoadReport, load_strict, read_state_dict

STRIDE = 4
_EDGE_CHANNELS = 32
_DISPLACEMENT_CHANNELS = 256


class _Level(nn.Sequential):
    """1x1 convolution and GroupNorm; resizing and ReLU follow in `_joined`."""

    def __init__(self, channels: int, out_channels: int, groups: int) -> None:
        super().__init__(
            nn.Conv2d(channels, out_channels, 1, bias=False), nn.GroupNorm(groups, out_channels)
        )


class MeanShift(nn.Module):
    """Subtracts the displacement field's running mean at inference.

    The loss only sees differences of displacements, so their mean is free; the running mean over
    training (momentum 0.1) centres them.
    """

    running_mean: Tensor

    def __init__(self, channels: int = 2, momentum: float = 0.1) -> None:
        super().__init__()
        self.momentum = momentum
        self.register_buffer("running_mean", torch.zeros(channels))

    def forward(self, field: Tensor) -> Tensor:
        """Return (B, 2, h, w) unchanged while training, centred otherwise."""
        if self.training:
            with torch.no_grad():
                self.running_mean.lerp_(field.float().mean((0, 2, 3)), self.momentum)
            return field
        return field - self.running_mean.view(1, -1, 1, 1)


class IrNet(nn.Module):
    """Edge and displacement branches on a frozen backbone.

    Args:
        backbone: Feature pyramid; at least one level of stride 4 or finer.
        dilation: Keep the dilated convolutions in the backbone. IRN takes the last stride out of
            ResNet-50 without dilating.

    Raises:
        UserError: No feature of the backbone is fine enough.
    """

    def __init__(self, backbone: Backbone, *, dilation: bool = True) -> None:
        super().__init__()
        shallow = [i for i, stride in enumerate(backbone.strides) if stride <= STRIDE]
        deep = [i for i, stride in enumerate(backbone.strides) if stride > STRIDE]
        if not shallow or not deep:
            raise UserError(
                f"IRNet cannot stand on a backbone with strides {list(backbone.strides)}",
                expected="features of stride 4 or finer, and coarser ones",
                fix="choose another irn.backbone",
            )
        self.backbone = freeze_batchnorm(backbone).eval()
        if not dilation:
            _undilate(self.backbone)
        for parameter in self.backbone.parameters():
            parameter.requires_grad_(False)
        self._shallow, self._deep = shallow, deep
        widths = [64 if i == 0 else 128 for i in range(len(shallow))]
        widths += [_DISPLACEMENT_CHANNELS] * len(deep)
        levels = len(backbone.channels)
        self.edge_levels = nn.ModuleList(
            _Level(channels, _EDGE_CHANNELS, 4) for channels in backbone.channels
        )
        self.edge_out = nn.Conv2d(_EDGE_CHANNELS * levels, 1, 1)
        self.displacement_levels = nn.ModuleList(
            _Level(channels, width, 8 if width == 64 else 16)
            for channels, width in zip(backbone.channels, widths, strict=True)
        )
        self.displacement_deep = _Level(
            _DISPLACEMENT_CHANNELS * len(deep), _DISPLACEMENT_CHANNELS, 16
        )
        self.displacement_joint = _Level(
            sum(widths[: len(shallow)]) + _DISPLACEMENT_CHANNELS, _DISPLACEMENT_CHANNELS, 16
        )
        self.displacement_out = nn.Conv2d(_DISPLACEMENT_CHANNELS, 2, 1, bias=False)
        self.mean_shift = MeanShift()

    def train(self, mode: bool = True) -> IrNet:
        """Switch the branches' mode; the backbone stays in eval mode."""
        super().train(mode)
        self.backbone.eval()
        return self

    def edge_parameters(self) -> list[nn.Parameter]:
        """Parameters of the edge branch."""
        return [*self.edge_levels.parameters(), *self.edge_out.parameters()]

    def displacement_parameters(self) -> list[nn.Parameter]:
        """Parameters of the displacement branch."""
        modules = (
            self.displacement_levels,
            self.displacement_deep,
            self.displacement_joint,
            self.displacement_out,
        )
        return [parameter for module in modules for parameter in module.parameters()]

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Return edge logits and displacements of a normalised image of any size.

        Args:
            image: (B, 3, H, W) float, normalised with the backbone's normalisation.

        Returns:
            (B, 1, h, w) edge logits and (B, 2, h, w) displacements (dy, dx) in map pixels, with
            h = (H-1)//4+1 and w = (W-1)//4+1.
        """
        features, size = self._features(image)
        return self._edge(features)[..., : size[0], : size[1]], self._displacement(features)[
            ..., : size[0], : size[1]
        ]

    def edge_logits(self, image: Tensor) -> Tensor:
        """Return the (B, 1, h, w) edge logits alone: all that inference needs."""
        features, size = self._features(image)
        return self._edge(features)[..., : size[0], : size[1]]

    def _features(self, image: Tensor) -> tuple[list[Tensor], tuple[int, int]]:
        height, width = image.shape[-2:]
        multiple = max(STRIDE, *self.backbone.strides)
        # Whole strides only, so that every level covers exactly the same area; never cropped.
        padded = F.pad(image, (0, -width % multiple, 0, -height % multiple))
        with torch.no_grad():
            features: list[Tensor] = self.backbone(padded)
        shallow = set(self._shallow)
        pooled = [
            _pool_to_stride_4(feature, self.backbone.strides[i]) if i in shallow else feature
            for i, feature in enumerate(features)
        ]
        return pooled, ((height - 1) // STRIDE + 1, (width - 1) // STRIDE + 1)

    def _edge(self, features: list[Tensor]) -> Tensor:
        size = features[self._shallow[0]].shape[-2:]
        joined = [
            _joined(level(feature), size)
            for level, feature in zip(self.edge_levels, features, strict=True)
        ]
        return cast(Tensor, self.edge_out(torch.cat(joined, 1)))

    def _displacement(self, features: list[Tensor]) -> Tensor:
        fine = features[self._shallow[0]].shape[-2:]
        middle = features[self._deep[0]].shape[-2:]
        levels = self.displacement_levels
        shallow = [_joined(levels[i](features[i]), fine) for i in self._shallow]
        deep = [_joined(levels[i](features[i]), middle) for i in self._deep]
        deep_joint = _joined(self.displacement_deep(torch.cat(deep, 1)), fine)
        joint = F.relu(self.displacement_joint(torch.cat([*shallow, deep_joint], 1)))
        return cast(Tensor, self.mean_shift(self.displacement_out(joint)))


def _joined(feature: Tensor, size: torch.Size) -> Tensor:
    if feature.shape[-2:] != size:
        feature = F.interpolate(feature, size=size, mode="bilinear", align_corners=False)
    return F.relu(feature)


def _pool_to_stride_4(feature: Tensor, stride: int) -> Tensor:
    # A ResNet's own max-pool follows its stride-2 feature; finer or other stems get the same.
    while stride < STRIDE:
        feature = F.max_pool2d(feature, 3, 2, 1)
        stride *= 2
    return feature


def _undilate(backbone: nn.Module) -> None:
    for module in backbone.modules():
        if isinstance(module, nn.Conv2d) and module.dilation != (1, 1):
            kernel = module.kernel_size
            module.dilation = (1, 1)
            module.padding = (kernel[0] // 2, kernel[1] // 2)


def edge_map(network: IrNet, image: Tensor, *, mirror: bool = True) -> Tensor:
    """Return boundary probabilities: sigmoid of the mean logits of image and mirrored image.

    Args:
        network: In eval mode.
        image: (B, 3, H, W) float, normalised; images of one size.
        mirror: Whether the mirrored image is averaged in.

    Returns:
        (B, h, w) float32 in 0..1 at stride 4.
    """
    if not mirror:
        return torch.sigmoid(network.edge_logits(image)[:, 0].float())
    logits = network.edge_logits(torch.cat([image, image.flip(-1)]))[:, 0].float()
    plain, mirrored = logits.chunk(2)
    return torch.sigmoid((plain + mirrored.flip(-1)) / 2)


def load_irn_checkpoint(network: IrNet, path: Path) -> LoadReport:
    """Load the published weights `res50_irn.pth` into an IrNet on timm's ResNet-50.

    The published module registers each layer under several names; one of each is used, the copies
    are reported as left out. Anything unknown, missing or of another shape is an error.

    Raises:
        UserError: The file does not hold exactly such a network.
    """
    return load_irn_state(network, read_state_dict(path), where=path)


def load_irn_state(
    network: IrNet, state: Mapping[str, Tensor], *, where: object | None = None
) -> LoadReport:
    """Load a published state dict; see `load_irn_checkpoint`."""
    plain = {name.removeprefix("module."): tensor for name, tensor in state.items()}
    # Copies of the same layers, IRN's statistics of the mean shift beside the mean, and what its
    # training wrapper adds (tables of pair positions).
    copies = ("resnet50.", "backbone.", "edge_layers.", "dp_layers.", "path_indices", "ind_")
    extra = ("fc_dp7.4.running_var", "fc_dp7.4.num_batches_tracked")
    return load_strict(
        network,
        plain,
        rename=_from_published,
        leave_out=lambda name: name.startswith(copies) or name in extra,
        where=where,
    )


def _from_published(name: str) -> str:
    head, _, rest = name.partition(".")
    body = "backbone.body."
    if head == "stage1":  # convolution and BatchNorm of the stem
        position, _, leaf = rest.partition(".")
        return f"{body}{('conv1', 'bn1')[int(position)]}.{leaf}" if position in "01" else name
    if head.startswith("stage"):
        return f"{body}layer{int(head[5:]) - 1}.{rest.partition('.')[2]}"
    if head == "fc_edge6":
        return f"edge_out.{rest}"
    if head.startswith("fc_edge"):
        return f"edge_levels.{int(head[7:]) - 1}.{rest}"
    if head == "fc_dp6":
        return f"displacement_deep.{rest}"
    if head == "fc_dp7":
        position, _, leaf = rest.partition(".")
        targets = {"3": "displacement_out", "4": "mean_shift"}
        return (
            f"{targets[position]}.{leaf}" if position in targets else f"displacement_joint.{rest}"
        )
    if head.startswith("fc_dp"):
        return f"displacement_levels.{int(head[5:]) - 1}.{rest}"
    return name
