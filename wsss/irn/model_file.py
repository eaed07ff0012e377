"""IRNet's model file: backbone and branches with the settings needed to build them again."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wsss.irn.config import IrnConfig
from wsss.models.backbones import build_backbone
from wsss.models.irnet import IrNet
from wsss.models.weights import load_model_file, load_strict, save_model
from wsss.runtime.settings import parse, replace, to_dict

STAGE = "irn"


def save_irn_model(
    path: Path, network: IrNet, *, config: IrnConfig, training: Mapping[str, Any]
) -> None:
    """Write the model file; same weights and settings, same bytes."""
    metadata = {
        "settings": to_dict(config),
        "normalisation": dataclasses.asdict(network.backbone.normalisation),
        "training": dict(training),
    }
    save_model(path, network.state_dict(), stage=STAGE, metadata=metadata)


def load_irn_model(path: Path) -> IrNet:
    """Return the network of a model file, in eval mode, on the CPU.

    Raises:
        UserError: The file is missing, damaged, of another stage, or of another version.
    """
    state, metadata = load_model_file(path, STAGE)
    config = parse(IrnConfig, metadata["settings"], where=f"settings in {path}")
    backbone = build_backbone(replace(config.backbone, weights="none"))
    network = IrNet(backbone, dilation=config.dilation)
    load_strict(network, state, where=path)
    return network.eval()
