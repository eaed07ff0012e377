"""The segmentation network's model file: weights with everything needed to use them."""

from __future__ import annotations

from pathlib import Path

from wsss.models.backbones import build_backbone, freeze_batchnorm
from wsss.models.deeplab import DeepLab
from wsss.models.model_file import ModelKind
from wsss.segmentation.config import SegmentationConfig


def build_network(
    config: SegmentationConfig, n_classes: int, weights_file: Path | None = None
) -> DeepLab:
    """Build backbone and head with their initial weights, BatchNorm frozen where configured."""
    backbone = build_backbone(config.backbone, weights_file)
    if config.freeze_batchnorm:
        freeze_batchnorm(backbone)
    return DeepLab(backbone, n_classes + 1, config.head)


SEGMENTATION: ModelKind[DeepLab, SegmentationConfig] = ModelKind(
    "segmentation", SegmentationConfig, build_network
)
