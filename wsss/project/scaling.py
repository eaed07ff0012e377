"""How long a run trains on a data set of another size, and how long that takes.

It is updates that a training needs, not passes over the pictures, and the epochs of a run were
chosen on a data set of some size: those of `voc-lite-best` on 663 pictures of VOC, where 8, 3 and
24 of them are 656, 246 and 1,968 updates. The same epochs on 60 pictures are less than a tenth of
these. So each training gets as many as there; where a run's epochs give more, they stay.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from wsss.project.runs import Run
from wsss.project.weights import weighted_stages

MEANT_FOR = 663
"""The training pictures that epochs are meant for."""
UPDATES: Mapping[str, int] = {"cam": 656, "irn": 246, "segmentation": 1968}
"""What is enough of each training, whatever a run's epochs are meant for: `voc-lite-best`'s."""
TIMED = "voc-lite"
"""The run whose networks, crops and batches the times below are of."""
SECONDS_PER_UPDATE: Mapping[str, float] = {
    "cam": 6.1 * 60 / 656,
    "acr": 10.8 * 60 / 492,
    "irn": 5.7 * 60 / 246,
    "segmentation": 14.7 * 60 / 984,
}
"""Time of an update by training, of the classifier by CAM method, on 2 cores without a GPU."""
SECONDS_PER_TRAINING_PICTURE: Mapping[str, float] = {
    "export": 1.7 * 60 / 663,
    "labels": 2.5 * 60 / 663,
    "pseudo_labels": 0.5 * 60 / 663,
    "lpcam": 1.6 * 60 / 663,
}
"""Time of a picture by stage; of `lpcam`, where the run has that, in each round."""
SECONDS_PER_PREDICTED_PICTURE = 3.8 * 60 / 321
"""Prediction and its CRF."""


def trainings(run: Run) -> tuple[str, ...]:
    """Return the stages of a run that train, in order."""
    return tuple(each for each in weighted_stages(run) if hasattr(run.stages[each], "epochs"))


def scaled_to(run: Run, pictures: int) -> dict[str, dict[str, Any]]:
    """Return what a run has to change for its trainings to be long enough.

    Epochs become as many as give each training the updates that they would be on `MEANT_FOR`
    pictures, or those of `UPDATES` if these are fewer, and stay where they give more; phases in
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
        wanted = settings["epochs"] * (MEANT_FOR // settings["batch_size"])
        wanted = min(wanted, UPDATES[stage])
        epochs = max(settings["epochs"], math.ceil(wanted / (pictures // batch)))
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
    """Return the time to expect on the machine that `TIMED` ran on.

    Args:
        run: A run whose networks, crops and batches are those of `TIMED`.
        pictures: How many it trains on.
        predicted: How many it predicts.

    Returns:
        Minutes, without the training of a CAM method that was not timed (`is_timed`); None:
        nothing like this run was measured.
    """
    if TIMED not in (run.name, *run.parents):
        return None
    labelled = run.has_cams and run.stop_after != "cam"
    clustered = run.has_cams and run.stages["export"].refine == "lpcam"
    passes = {
        "export": int(run.has_cams),
        "labels": int(labelled),
        "pseudo_labels": int(labelled),
        "lpcam": run.stages["lpcam"].rounds if clustered else 0,
    }
    seconds = pictures * sum(
        count * SECONDS_PER_TRAINING_PICTURE[stage] for stage, count in passes.items()
    )
    if run.stop_after == "segmentation":
        seconds += predicted * SECONDS_PER_PREDICTED_PICTURE
    for stage, count in updates(run, pictures).items():
        key = run.stages["cam"].method if stage == "cam" else stage
        seconds += count * SECONDS_PER_UPDATE.get(key, 0.0)
    return seconds / 60


def is_timed(method: str) -> bool:
    """Return whether `expected_minutes` knows how long a CAM method trains."""
    return method in SECONDS_PER_UPDATE
