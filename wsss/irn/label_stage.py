"""Pseudo-label stage: whichever way the settings choose."""

from __future__ import annotations

from pathlib import Path

from wsss.errors import UserError
from wsss.irn.label_methods import LABEL_METHODS, LabelSettings
from wsss.maps.chosen import Maps, with_chosen
from wsss.maps.shards import WHOLE, Shard
from wsss.runtime.compute import InferenceCompute
from wsss.runtime.registry import load_code


def make_labels(
    *,
    config: LabelSettings,
    cams: Path,
    index: Path,
    root: Path,
    output: Path,
    maps: Path,
    compute: InferenceCompute,
    model: Path | None = None,
    thresholds: Path | None = None,
    shard: Shard = WHOLE,
) -> None:
    """Write pseudo-label PNGs, and maps for scoring them at other background scores.

    Args:
        config: Settings of the chosen method.
        cams: Map store of the CAMs; its images are labelled.
        index: index.csv.
        root: Folder that the index's paths are relative to.
        output: Folder of PNGs to write (0 background, class + 1, 255 unsure).
        maps: Map store to write: what the labels were decided by.
        compute: Device and processes; the labels do not depend on how many.
        model: The trained IRNet, of a method that needs one.
        thresholds: File of chosen scores (JSON), where `config.background` is `auto`: of walked
            maps for a method that walks, of the CAMs otherwise.
        shard: The part of the images to label.

    Raises:
        UserError: The inputs do not belong together, an image is missing or has changed, or the
            background score is `auto` and was not chosen.
    """
    method = LABEL_METHODS.get(config.method, where="pseudo_labels.method")
    inputs = {"cams": cams, "index": index, "root": root}
    if method.needs_model:
        if model is None:
            raise UserError(
                f"the pseudo-label method '{method.name}' needs a trained IRNet",
                where="--model",
                fix="--model results/<run>/irn/model.safetensors, or set pseudo_labels.method to "
                "crf, which needs none",
            )
        inputs["model"] = model
    which: Maps = "walked" if method.needs_model else "cam"
    config = with_chosen("pseudo_labels", config, thresholds, maps=which)
    make = load_code(method.function)
    make(config=config, output=output, maps=maps, compute=compute, shard=shard, **inputs)
