"""DeepLab heads on any backbone: V3+ (ECCV 2018), LargeFOV (ICLR 2015) and V2 (PAMI 2018)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wsss.errors import UserError
from wsss.models.backbones import Backbone
from wsss.models.heads.deeplab_config import LargeFovSettings, V2Settings, V3PlusSettings


def _conv_norm_relu(in_channels: int, out_channels: int, kernel: int, rate: int = 1) -> nn.Module:
    padding = rate * (kernel // 2)
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel, padding=padding, dilation=rate, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    )


def _separable(in_channels: int, out_channels: int, rate: int = 1) -> nn.Module:
    """A dilated 3x3 convolution a channel, then 1x1: V3+'s own saving, what makes it light."""
    return nn.Sequential(
        nn.Conv2d(
            in_channels,
            in_channels,
            3,
            padding=rate,
            dilation=rate,
            groups=in_channels,
            bias=False,
        ),
        nn.BatchNorm2d(in_channels),
        nn.ReLU(inplace=True),
        *_conv_norm_relu(in_channels, out_channels, 1).children(),
    )


class _GlobalPooling(nn.Module):
    """The image-level branch of the ASPP; without BatchNorm, which one image cannot feed."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.project = nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        # mean() rather than adaptive pooling, whose CUDA gradient is not deterministic.
        pooled = F.relu(self.project(x.mean((2, 3), keepdim=True)))
        return pooled.expand(-1, -1, x.shape[2], x.shape[3])


class V3PlusHead(nn.Module):
    """DeepLabV3+: ASPP on the last feature, joined with a stride-4 feature in a small decoder."""

    def __init__(self, backbone: Backbone, n_labels: int, config: V3PlusSettings) -> None:
        super().__init__()
        levels = [i for i, stride in enumerate(backbone.strides[:-1]) if stride == 4]
        if not levels:
            raise UserError(
                f"the backbone's features have strides {backbone.strides}",
                expected="one of stride 4 before the last, for DeepLabV3+'s decoder",
                fix="choose another backbone, or head.name 'largefov' or 'v2'",
            )
        self._level = levels[-1]
        width = config.channels
        self.aspp = nn.ModuleList(
            [
                _conv_norm_relu(backbone.out_channels, width, 1),
                *(_separable(backbone.out_channels, width, rate) for rate in config.dilations()),
                _GlobalPooling(backbone.out_channels, width),
            ]
        )
        self.project = _conv_norm_relu(width * len(self.aspp), width, 1)
        self.low_level = _conv_norm_relu(
            backbone.channels[self._level], config.low_level_channels, 1
        )
        self.decoder = nn.Sequential(
            _separable(width + config.low_level_channels, width), _separable(width, width)
        )
        self.dropout = nn.Dropout(config.dropout)
        self.classifier = nn.Conv2d(width, n_labels, 1)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Return logits (B, n_labels, ~H/4, ~W/4) from the backbone's features."""
        x = self.project(torch.cat([branch(features[-1]) for branch in self.aspp], dim=1))
        low = self.low_level(features[self._level])
        x = F.interpolate(x, size=low.shape[2:], mode="bilinear", align_corners=False)
        x = self.decoder(torch.cat([x, low], dim=1))
        logits: Tensor = self.classifier(self.dropout(x))
        return logits


class LargeFovHead(nn.Module):
    """DeepLab-LargeFOV: one 3x3 convolution of dilation 12, one 1x1, the classifier."""

    def __init__(self, backbone: Backbone, n_labels: int, config: LargeFovSettings) -> None:
        super().__init__()
        (rate,) = config.dilations()
        self.field_of_view = _conv_norm_relu(backbone.out_channels, config.channels, 3, rate)
        self.hidden = _conv_norm_relu(config.channels, config.channels, 1)
        self.dropout = nn.Dropout(config.dropout)
        self.classifier = nn.Conv2d(config.channels, n_labels, 1)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Return logits (B, n_labels, h, w) at the last feature's size."""
        x = self.hidden(self.field_of_view(features[-1]))
        logits: Tensor = self.classifier(self.dropout(x))
        return logits


class V2Head(nn.Module):
    """DeepLabV2's ASPP: the sum of four dilated 3x3 classifiers."""

    def __init__(self, backbone: Backbone, n_labels: int, config: V2Settings) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            nn.Conv2d(backbone.out_channels, n_labels, 3, padding=rate, dilation=rate)
            for rate in config.dilations()
        )
        for branch in self.branches:
            assert isinstance(branch, nn.Conv2d) and branch.bias is not None
            nn.init.normal_(branch.weight, std=0.01)
            nn.init.zeros_(branch.bias)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Return logits (B, n_labels, h, w) at the last feature's size."""
        logits: Tensor = self.branches[0](features[-1])
        for branch in self.branches[1:]:
            logits = logits + branch(features[-1])
        return logits
