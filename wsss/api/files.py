"""Where things lie that people name by a run's folder."""

from __future__ import annotations

from pathlib import Path

from wsss.errors import UserError


def find_model(path: Path) -> Path:
    """Return the segmentation model of a run, or of a folder with a model in it.

    Args:
        path: `results/<run>`, a folder with `model.safetensors`, or a model file.

    Raises:
        UserError: There is none.
    """
    if path.is_file():
        return path
    if path.is_dir() and (path / "model.safetensors").is_file():
        return path / "model.safetensors"
    model = path / "segmentation" / "model.safetensors"
    if not model.is_file():
        raise UserError(
            "no trained segmentation model is here",
            where=path,
            expected=f"{model}, or the path of a model file",
            fix=f"train it:  snakemake --cores all {path}/miou.csv",
        )
    return model


def find_prediction_settings(model: Path) -> Path | None:
    """Return the prediction settings of the run that a model file lies in, if it lies in one."""
    settings = model.absolute().parent.parent / "config" / "prediction.json"
    return settings if settings.is_file() else None


def find_cams(path: Path) -> Path:
    """Return the CAM store of a run; the path of a file is taken as it is."""
    return path / "cams.h5" if path.is_dir() else path
