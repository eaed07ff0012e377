"""The trained model's file: weights with everything needed to use them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wsss.models.backbones import build_backbone
from wsss.models.deeplab import DeepLab
from wsss.models.weights import load_model_file, load_strict, save_model
from wsss.runtime.settings import parse, replace, to_dict
from wsss.segmentation.config import SegmentationConfig

STAGE = "segmentation"


@dataclass(frozen=True)
class TrainedModel:
    """A network ready for prediction.

    Attributes:
        network: In eval mode, on the CPU.
        classes: Names without background; label = position + 1.
        config: What it was trained with.
    """

    network: DeepLab
    classes: tuple[str, ...]
    config: SegmentationConfig


def save_segmentation_model(
    path: Path,
    network: DeepLab,
    *,
    classes: Sequence[str],
    config: SegmentationConfig,
    training: Mapping[str, Any],
) -> None:
    """Write the model file; same weights and settings, same bytes."""
    metadata = {
        "classes": list(classes),
        "settings": to_dict(config),
        "normalisation": dataclasses.asdict(network.backbone.normalisation),
        "training": dict(training),
    }
    save_model(path, network.state_dict(), stage=STAGE, metadata=metadata)


def load_segmentation_model(path: Path) -> TrainedModel:
    """Read a model file; nothing else is needed, no initial weights and no configuration.

    Raises:
        UserError: The file is missing, damaged, of another stage, or of another version.
    """
    state, metadata = load_model_file(path, STAGE)
    config = parse(SegmentationConfig, metadata["settings"], where=f"settings in {path}")
    backbone = build_backbone(replace(config.backbone, weights="none"))
    classes = tuple(metadata["classes"])
    network = DeepLab(backbone, len(classes) + 1, config.head)
    load_strict(network, state, where=path)
    return TrainedModel(network.eval(), classes, config)
