"""IRNet's model file: backbone and branches with the settings needed to build them again."""

from __future__ import annotations

from pathlib import Path

from wsss.irn.config import IrnConfig
from wsss.models.backbones import build_backbone
from wsss.models.irnet import IrNet
from wsss.models.model_file import ModelKind


def build_irnet(config: IrnConfig, n_classes: int = 0, weights_file: Path | None = None) -> IrNet:
    """Build IRNet, which knows no classes, on its backbone's initial weights."""
    return IrNet(build_backbone(config.backbone, weights_file), dilation=config.dilation)


IRNET: ModelKind[IrNet, IrnConfig] = ModelKind("irn", IrnConfig, build_irnet)
