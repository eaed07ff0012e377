"""CAM methods by name, and the model files that training writes and export reads.

A new method is a module with a task (networks, optimisers, one step) and an entry here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from wsss.cam.config import CamConfig
from wsss.cam.methods.acr import AcrMethod, untrained_reconstructor
from wsss.cam.methods.plain import PlainMethod, classifier_from_state
from wsss.cam.methods.transformer import TRANSFORMER, transformer_from_state
from wsss.errors import UserError
from wsss.files import content_hash
from wsss.models.classifier import Classifier
from wsss.models.reconstructor import Reconstructor
from wsss.models.weights import load_model_file, load_strict, save_model
from wsss.runtime.settings import from_dict, to_dict
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


class _TaskBuilder(Protocol):
    def __call__(
        self,
        config: CamConfig,
        n_classes: int,
        *,
        device: torch.device,
        weights_file: Path | None = None,
        transformer_weights_file: Path | None = None,
    ) -> CamTask: ...


class _ClassifierReader(Protocol):
    def __call__(
        self,
        config: CamConfig,
        n_classes: int,
        state: Mapping[str, Tensor],
        *,
        where: object | None = None,
    ) -> Classifier: ...


@dataclass(frozen=True)
class Method:
    """How a method is trained, and how its classifier is built again from a file."""

    task: _TaskBuilder
    classifier: _ClassifierReader


METHODS: Mapping[str, Method] = {
    "acr": Method(AcrMethod, classifier_from_state),
    "acr-vit": Method(partial(AcrMethod, family=TRANSFORMER), transformer_from_state),
    "cam": Method(PlainMethod, classifier_from_state),
    "mct": Method(partial(PlainMethod, family=TRANSFORMER), transformer_from_state),
}


def method(name: str) -> Method:
    """Return the method called `name`.

    Raises:
        UserError: There is none; the message lists those there are.
    """
    if name not in METHODS:
        raise UserError(f"cam.method is {name!r}", expected="one of " + ", ".join(sorted(METHODS)))
    return METHODS[name]


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
    config: CamConfig
    classes: tuple[str, ...]
    identity: str


def save_cam_model(
    path: Path,
    network: nn.Module,
    config: CamConfig,
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
    config = from_dict(CamConfig, metadata["settings"], where=f"{path}, metadata")
    classes = tuple(metadata["classes"])
    read = method(config.method).classifier
    return CamModel(
        classifier=read(config, len(classes), state, where=path).eval(),
        config=config,
        classes=classes,
        identity=content_hash([metadata["settings"], metadata["classes"]]),
    )


def load_reconstructor(path: Path, trained: CamModel) -> Reconstructor:
    """Read the reconstructor that was trained against a classifier, in eval mode.

    Raises:
        UserError: It is missing, damaged, another kind of model, or of another training.
    """
    state, metadata = load_model_file(path, RECONSTRUCTOR)
    if content_hash([metadata["settings"], metadata["classes"]]) != trained.identity:
        raise UserError(
            "this reconstructor was not trained against this classifier",
            where=path,
            expected="both files of one training",
        )
    reconstructor = untrained_reconstructor(trained.config, len(trained.classes))
    load_strict(reconstructor, state, where=path)
    return reconstructor.eval()
