"""The trainings of CAM methods, and the model files that they write and export reads."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Protocol

import torch

from wsss.cam.config import CamSettings, TrainedSettings
from wsss.cam.methods.registry import METHODS
from wsss.errors import UserError
from wsss.models.classifier import Classifier
from wsss.models.model_file import ModelKind, Trained
from wsss.models.reconstructor import Reconstructor
from wsss.runtime.registry import load_code
from wsss.training.averaging import AveragedTask
from wsss.training.schedule import Schedule
from wsss.training.step import TrainingTask


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


class AveragedMethod(AveragedTask[Classifier]):
    """The training of a method, with the average of the classifier's weights as its result.

    Args:
        task: The training.
        decay: Of the average, a step.

    Attributes:
        classifier: With the averaged weights.
        schedules: The training's.
    """

    def __init__(self, task: CamTask, decay: float) -> None:
        super().__init__(task, task.classifier, decay)
        self.classifier: Classifier = self.result
        self.schedules: Mapping[str, Schedule] = task.schedules


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
        """Build networks and optimisers on `device`, with the method's own settings.

        A method whose settings name an `anchor_run` also takes `anchor`, that run's classifier.
        """
        ...


def cam_task(config: CamSettings, n_classes: int, **options: Any) -> CamTask:
    """Build the training of the method that settings are of, a `TaskBuilder`.

    Raises:
        UserError: The method trains nothing.
    """
    build: TaskBuilder = load_code(_code_of(config, "task"))
    task = build(config, n_classes, **options)
    if isinstance(config, TrainedSettings) and config.ema:
        return AveragedMethod(task, config.ema)
    return task


def build_classifier(config: CamSettings, n_classes: int) -> Classifier:
    """Build the classifier of the method that settings are of.

    Raises:
        UserError: The method trains nothing.
    """
    classifier: Classifier = load_code(_code_of(config, "classifier"))(config, n_classes)
    return classifier


def _code_of(config: CamSettings, part: Literal["task", "classifier"]) -> str:
    method = METHODS.get(config.method, where="method")
    code: str | None = getattr(method, part)
    if code is None:
        raise UserError(f"the CAM method '{method.name}' trains nothing", where="method")
    return code


def build_reconstructor(config: CamSettings, n_classes: int) -> Reconstructor:
    """Build the adversary of a method that has one."""
    # By name: a change to it concerns no method without one.
    build = load_code("wsss.cam.methods.adversary:build_reconstructor")
    reconstructor: Reconstructor = build(config, n_classes)
    return reconstructor


CamModel = Trained[Classifier, CamSettings]
CLASSIFIER: ModelKind[Classifier, CamSettings] = ModelKind("cam", METHODS, build_classifier)
RECONSTRUCTOR: ModelKind[Reconstructor, CamSettings] = ModelKind(
    "reconstructor", METHODS, build_reconstructor
)
