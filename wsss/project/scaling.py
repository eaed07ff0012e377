"""How long a run trains on a data set of another size, and how long that takes.

It is updates that a training needs, not passes over the pictures: on 663 pictures of VOC `voc-lite`
got a useful model from 492 updates of the classifier, 246 of IRNet and 984 of the segmentation, in
6, 3 and 12 epochs. The same epochs on 60 pictures are less than a tenth of these updates. So each
training gets at least as many as there; where a run's epochs give more, they stay.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from wsss.irn.label_methods import LABEL_METHODS
from wsss.project.runs import Run

MEASURED = "voc-lite"
"""The run that the numbers below are of; docs/measurements.md has them."""
UPDATES: Mapping[str, int] = {"cam": 492, "irn": 246, "segmentation": 984}
"""Updates of each training: 6, 3 and 12 epochs of 663 pictures in batches of 8."""
TRAINING_MINUTES: Mapping[str, float] = {"cam": 10.8, "irn": 5.7, "segmentation": 14.7}
"""What these took, on 2 cores without a GPU."""
METHOD = "acr"
"""What `cam` trained there."""
SECONDS_PER_TRAINING_PICTURE = (1.7 + 2.5 + 0.5) * 60 / 663
"""Export, IRN labels and pseudo-labels."""
SECONDS_PER_PREDICTED_PICTURE = 3.8 * 60 / 321
"""Prediction and its CRF."""


def trainings(run: Run) -> tuple[str, ...]:
    """Return the stages of a run that train, in order."""
    method = LABEL_METHODS.get(run.stages["pseudo_labels"].method, where="pseudo_labels.method")
    needed = {
        "cam": hasattr(run.stages["cam"], "epochs"),
        "irn": method.needs_model,
        "segmentation": True,
    }
    return tuple(stage for stage in UPDATES if needed[stage])


def scaled_to(run: Run, pictures: int) -> dict[str, dict[str, Any]]:
    """Return what a run has to change for its trainings to be long enough.

    Epochs become as many as give each training `UPDATES`, or stay where they give more; phases in
    epochs grow with them. A batch that is larger than the data set becomes the data set.

    Args:
        run: The run, as it would be.
        pictures: How many it trains on.

    Returns:
        Stage -> settings to change, nested as in the configuration.
    """
    changes: dict[str, dict[str, Any]] = {}
    for stage in trainings(run):
        settings = run.settings(stage)
        batch = min(settings["batch_size"], pictures)
        epochs = max(settings["epochs"], math.ceil(UPDATES[stage] / (pictures // batch)))
        changed: dict[str, Any] = {}
        if epochs > settings["epochs"]:
            changed = _stretched(settings, epochs / settings["epochs"]) | {"epochs": epochs}
        if batch < settings["batch_size"]:
            changed["batch_size"] = batch
        if changed:
            changes[stage] = changed
    return changes


def _stretched(values: Mapping[str, Any], factor: float) -> dict[str, Any]:
    """Return the phases among settings, each times a factor."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            inner = _stretched(value, factor)
            if inner:
                found[key] = inner
        elif key.endswith("_epochs") and value:
            found[key] = round(value * factor) if isinstance(value, int) else value * factor
    return found


def updates(run: Run, pictures: int) -> dict[str, int]:
    """Return how many updates each training of a run makes."""
    return {
        stage: run.stages[stage].epochs * (pictures // run.stages[stage].batch_size)
        for stage in trainings(run)
    }


def expected_minutes(run: Run, pictures: int, predicted: int) -> float | None:
    """Return the time to expect on the machine that `MEASURED` ran on.

    Args:
        run: A run whose networks, crops and batches are those of `MEASURED`.
        pictures: How many it trains on.
        predicted: How many it predicts.

    Returns:
        Minutes, without the CAM method's own where that is another than `METHOD`; None: nothing
        like this run was measured.
    """
    if MEASURED not in run.parents:
        return None
    minutes = sum(
        count * TRAINING_MINUTES[stage] / UPDATES[stage]
        for stage, count in updates(run, pictures).items()
        if stage != "cam" or run.stages["cam"].method == METHOD
    )
    per_picture = pictures * SECONDS_PER_TRAINING_PICTURE
    return minutes + (per_picture + predicted * SECONDS_PER_PREDICTED_PICTURE) / 60
