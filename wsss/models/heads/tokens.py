"""Light heads on features of one stride, as a vision transformer's are: linear, or a pyramid."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wsss.models.backbones import Backbone
from wsss.models.heads.tokens_config import LinearSettings, PyramidSettings


def _resized(feature: Tensor, like: Tensor) -> Tensor:
    if feature.shape[-2:] == like.shape[-2:]:
        return feature
    return F.interpolate(feature, size=like.shape[-2:], mode="bilinear", align_corners=False)


class LinearHead(nn.Module):
    """BatchNorm and a 1x1 convolution on the features side by side.

    What DINOv2 (TMLR 2024) evaluates frozen features with.

    Args:
        backbone: Whose features these are.
        n_labels: Labels, background among them.
        settings: Rate of channels left out before the classifier.
    """

    def __init__(self, backbone: Backbone, n_labels: int, settings: LinearSettings) -> None:
        super().__init__()
        width = sum(backbone.channels)
        self.norm = nn.BatchNorm2d(width)
        self.dropout = nn.Dropout2d(settings.dropout)
        self.classifier = nn.Conv2d(width, n_labels, 1)
        nn.init.normal_(self.classifier.weight, std=0.01)
        assert self.classifier.bias is not None
        nn.init.zeros_(self.classifier.bias)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Return logits (B, n_labels, h, w) at the last feature's size."""
        x = self.norm(torch.cat([_resized(each, features[-1]) for each in features], dim=1))
        logits: Tensor = self.classifier(self.dropout(x))
        return logits


class PyramidHead(nn.Module):
    """A pyramid of features of one stride, added up from coarse to fine.

    ViTDet (ECCV 2022) makes a pyramid of a plain transformer's last feature by resizing it, and
    FPN (CVPR 2017) adds the levels up; here the levels are the features, shallow ones fine.

    Args:
        backbone: Whose features these are, shallow to deep.
        n_labels: Labels, background among them.
        settings: Width, and rate of channels left out before the classifier.
    """

    def __init__(self, backbone: Backbone, n_labels: int, settings: PyramidSettings) -> None:
        super().__init__()
        width = settings.channels
        # 4, 2, 1, 1/2 times the last feature's resolution; of fewer features, the first ones'.
        self.factors = tuple(4.0 / 2**level for level in range(len(backbone.channels)))
        self.lateral = nn.ModuleList(nn.Conv2d(each, width, 1) for each in backbone.channels)
        self.smooth = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
        )
        self.dropout = nn.Dropout2d(settings.dropout)
        self.classifier = nn.Conv2d(width, n_labels, 1)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Return logits (B, n_labels, 4 h, 4 w), the last feature being h by w."""
        height, width = features[-1].shape[-2:]
        total: Tensor | None = None
        levels = zip(self.lateral, features, self.factors, strict=True)
        for lateral, feature, factor in reversed(list(levels)):
            size = [max(1, round(height * factor)), max(1, round(width * factor))]
            level = F.interpolate(lateral(feature), size=size, mode="bilinear", align_corners=False)
            if total is not None:
                level = level + F.interpolate(
                    total, size=size, mode="bilinear", align_corners=False
                )
            total = level
        assert total is not None
        logits: Tensor = self.classifier(self.dropout(self.smooth(total)))
        return logits
