"""`config.json` of a folder as Hugging Face has it: what `wsss.load` reads beside the weights."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from wsss import __version__
from wsss.files import read_json
from wsss.runtime.settings import parse, to_dict
from wsss.segmentation.config import PredictionConfig, SegmentationConfig

CONFIG = "config.json"
MODEL_TYPE = "wsss-segmentation"


def hub_config(
    classes: Sequence[str], settings: SegmentationConfig, prediction: PredictionConfig
) -> dict[str, Any]:
    """Return what `config.json` holds.

    Args:
        classes: Names without background.
        settings: What the model was trained with.
        prediction: How it is to be applied.
    """
    labels = ("background", *classes)
    return {
        "model_type": MODEL_TYPE,
        "wsss_version": __version__,
        "id2label": {str(value): name for value, name in enumerate(labels)},
        "label2id": {name: value for value, name in enumerate(labels)},
        "segmentation": to_dict(settings),
        "prediction": to_dict(prediction),
    }


def read_prediction(folder: Path) -> PredictionConfig | None:
    """Return the prediction settings in a folder's `config.json`; None: it has none of ours.

    Raises:
        UserError: They are damaged, or of another version.
    """
    path = folder / CONFIG
    values = read_json(path) if path.is_file() else None
    if not isinstance(values, dict) or values.get("model_type") != MODEL_TYPE:
        return None
    return parse(PredictionConfig, values.get("prediction", {}), where=str(path))
