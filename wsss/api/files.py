"""Where things lie that people name by a run's folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from wsss.errors import UserError
from wsss.files import read_json
from wsss.project.run_folders import find_run, lacking, no_cams, no_segmentation

if TYPE_CHECKING:
    from wsss.segmentation.config import PredictionConfig


def find_model(path: Path) -> Path:
    """Return the segmentation model of a run, or of a folder with a model in it.

    Args:
        path: `results/<run>` or `<run>`, a folder with `model.safetensors`, or a model file.

    Raises:
        UserError: There is none.
    """
    if path.suffix == ".safetensors" and not path.exists():
        raise UserError("this model file does not exist", where=path)
    folder = find_run(path)
    if folder.is_file():
        return folder
    if (folder / "model.safetensors").is_file():
        return folder / "model.safetensors"
    model = folder / "segmentation" / "model.safetensors"
    if not model.is_file():
        raise lacking(
            folder,
            "no trained segmentation model is here",
            expected=f"{model}, or the path of a model file",
            never=no_segmentation,
        )
    return model


def prediction_settings(model: Path) -> PredictionConfig:
    """Return the prediction settings that belong to a model file.

    Those of `config.json` beside it, where `wsss export-model` wrote one; those of the run that it
    lies in; else the defaults.

    Raises:
        UserError: They are damaged, or of another version.
    """
    from wsss.runtime.settings import parse
    from wsss.segmentation.config import PredictionConfig
    from wsss.segmentation.exports.hub import read_prediction

    beside = read_prediction(model.absolute().parent)
    if beside is not None:
        return beside
    settings = model.absolute().parent.parent / "config" / "prediction.json"
    if settings.is_file():
        return parse(PredictionConfig, read_json(settings), where=str(settings))
    return PredictionConfig()


def find_cams(path: Path) -> Path:
    """Return the CAM store of a run; the path of a file is taken as it is.

    Raises:
        UserError: The run has none.
    """
    folder = find_run(path)
    if path.suffix == ".h5" or folder.is_file():
        return path
    if not (folder / "cams.h5").is_file():
        raise lacking(folder, "no CAMs are here", expected="cams.h5", never=no_cams)
    return folder / "cams.h5"
