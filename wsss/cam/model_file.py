"""The trainings of CAM methods, and the model files that they write and export reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from wsss.cam.config import CamSettings
from wsss.cam.methods.registry import METHODS
from wsss.errors import UserError
from wsss.files import content_hash
from wsss.models.classifier import Classifier
from wsss.models.weights import load_model_file, save_model
from wsss.runtime.registry import load_code
from wsss.runtime.settings import to_dict
from wsss.training.loop import TrainingSummary
from wsss.training.schedule import Schedule
from wsss.training.step import TrainingTask

CLASSIFIER = "cam"
RECONSTRUCTOR = "reconstructor"


class CamTask(TrainingTask, Protocol):
    """A training task whose result is a classifier that CAMs are read from."""

    @property
    def classifier(self) -> Classifier:
        """The network whose CAMs are exported."""
        ...

    @property
    def schedules(self) -> Mapping[str, Schedule]:
        """Schedules of optimisers that depart from the training's poly schedule, by name."""
        ...


class TaskBuilder(Protocol):
    """What a method's record names as its training."""

    def __call__(
        self,
        config: Any,
        n_classes: int,
        *,
        device: torch.device,
        weights_file: Path | None = None,
        transformer_weights_file: Path | None = None,
    ) -> CamTask:
        """Build networks and optimisers on `device`, with the method's own settings."""
        ...


def cam_task(config: CamSettings, n_classes: int, **options: Any) -> CamTask:
    """Build the training of the method that settings are of, a `TaskBuilder`.

    Raises:
        UserError: The method trains nothing.
    """
    method = METHODS.get(config.method, where="method")
    if method.task is None:
        raise UserError(f"the CAM method '{method.name}' trains nothing", where="method")
    build: TaskBuilder = load_code(method.task)
    return build(config, n_classes, **options)


@dataclass(frozen=True)
class CamModel:
    """A trained classifier.

    Attributes:
        classifier: In eval mode, on the CPU.
        config: What it was trained with.
        classes: Class names without background.
        identity: Hash of its settings and classes.
    """

    classifier: Classifier
    config: CamSettings
    classes: tuple[str, ...]
    identity: str


def save_cam_model(
    path: Path,
    network: nn.Module,
    config: CamSettings,
    classes: Sequence[str],
    summary: TrainingSummary,
    *,
    stage: str = CLASSIFIER,
) -> None:
    """Write a trained network, the classifier unless `stage` says otherwise, ready for use."""
    metadata = {
        "settings": to_dict(config),
        "classes": list(classes),
        "training": asdict(summary),
    }
    save_model(path, network.state_dict(), stage=stage, metadata=metadata)


def load_cam_model(path: Path) -> CamModel:
    """Read a file of `save_cam_model`.

    Raises:
        UserError: It is missing, damaged, or another kind of model.
    """
    state, metadata = load_model_file(path, CLASSIFIER)
    config = METHODS.parse(metadata["settings"], where=f"{path}, metadata")
    assert isinstance(config, CamSettings)
    classes = tuple(metadata["classes"])
    name = METHODS.get(config.method, where=f"{path}, metadata").classifier
    assert name is not None
    return CamModel(
        classifier=load_code(name)(config, len(classes), state, where=path).eval(),
        config=config,
        classes=classes,
        identity=content_hash([metadata["settings"], metadata["classes"]]),
    )
