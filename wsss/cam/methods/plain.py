"""The plain classifier (`cam`): the baseline of every CAM method, and what they share with it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn
from torch.optim import SGD, Optimizer

from wsss.cam.config import TrainedSettings
from wsss.cam.losses import classification_loss
from wsss.cam.methods.plain_config import ConvolutionalSettings
from wsss.data.transforms import normalise
from wsss.models.backbones import build_backbone, freeze_batchnorm
from wsss.models.classifier import Classifier
from wsss.models.reconstructor import CamClassifier
from wsss.runtime.compute import autocast
from wsss.training.schedule import Schedule
from wsss.training.step import OnePhaseTask, Part

C = TypeVar("C", bound=TrainedSettings)


@dataclass(frozen=True)
class Family:
    """A kind of classifier, which any method can train.

    Attributes:
        build: Builds it on the CPU with its initial weights, from settings and number of classes;
            each family takes the one of `weights_file` and `transformer_weights_file` it needs.
        optimizer: Its optimiser.
        schedule: Factor on the optimiser's learning rate; None: the training's poly schedule.
    """

    build: Callable[..., Classifier]
    optimizer: Callable[[Any, Any], Optimizer]
    schedule: Callable[[Any], Schedule] | None = None

    def schedules(self, config: TrainedSettings) -> dict[str, Schedule]:
        """Return the schedule by the name of the optimiser that follows it."""
        return {} if self.schedule is None else {"classifier": self.schedule(config)}


def build_classifier(
    config: ConvolutionalSettings,
    n_classes: int,
    *,
    weights_file: Path | None = None,
    transformer_weights_file: Path | None = None,
) -> CamClassifier:
    """Build the classifier with its initial weights, BatchNorm frozen where configured."""
    classifier = CamClassifier(
        build_backbone(config.backbone, weights_file), n_classes, config.head
    )
    return freeze_batchnorm(classifier) if config.freeze_batchnorm else classifier


def sgd(
    config: ConvolutionalSettings, module: nn.Module, factors: Iterable[tuple[nn.Module, float]]
) -> SGD:
    """Build SGD over what `module` trains.

    Args:
        config: Learning rate, momentum, weight decay.
        module: What is trained.
        factors: Parts of `module` and their learning-rate factors, a later one winning; all
            else has 1. Biases have twice that and no weight decay.
    """
    factor_of: dict[nn.Parameter, float] = {}
    for part, factor in factors:
        factor_of.update(dict.fromkeys(part.parameters(), factor))
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            key = (factor_of.get(parameter, 1.0), name.endswith("bias"))
            groups.setdefault(key, []).append(parameter)
    return SGD(
        [
            {
                "params": parameters,
                "lr": config.learning_rate * factor * (2 if is_bias else 1),
                "weight_decay": 0.0 if is_bias else config.weight_decay,
            }
            for (factor, is_bias), parameters in groups.items()
        ],
        lr=config.learning_rate,
        momentum=config.momentum,
    )


def _sgd_of_classifier(config: ConvolutionalSettings, classifier: CamClassifier) -> SGD:
    return sgd(config, classifier, [(classifier.head, config.head_lr_factor)])


CONVOLUTIONAL = Family(build_classifier, _sgd_of_classifier)


class ClassifierTask(Generic[C]):
    """A classifier to train, its optimiser and its schedule: what all methods start from.

    Args:
        config: Settings of the training.
        n_classes: Classes, background not among them.
        device: Where to train.
        family: Kind of classifier.
        weights: Initial weights: `weights_file`, where `config.backbone.weights` names a file, and
            `transformer_weights_file`, where `config.vit.weights` does.

    Attributes:
        classifier: The network whose CAMs are exported.
        modules: For checkpoints.
        optimizers: For the schedule and checkpoints.
        schedules: Of optimisers that depart from the training's poly schedule.
    """

    modules: Mapping[str, nn.Module]
    optimizers: Mapping[str, Optimizer]

    def __init__(
        self,
        config: C,
        n_classes: int,
        *,
        device: torch.device,
        family: Family = CONVOLUTIONAL,
        **weights: Path | None,
    ) -> None:
        self.config = config
        self.device = device
        self.classifier = family.build(config, n_classes, **weights)
        self.classifier.to(device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
        self.modules = {"classifier": self.classifier}
        self.optimizers = {"classifier": family.optimizer(config, self.classifier)}
        self.schedules: Mapping[str, Schedule] = family.schedules(config)


def classification_terms(
    classifier: Classifier, config: TrainedSettings, device: torch.device, part: Part
) -> Mapping[str, Tensor]:
    """Return the classification loss of a part with `image`, `valid` and `label`."""
    batch = part.batch
    x = normalise(batch["image"], classifier.normalisation, batch["valid"])
    with autocast(device, config.precision):
        logits = classifier.classify(x.contiguous(memory_format=torch.channels_last))
    loss = classification_loss(logits, batch["label"], config.label_smoothing)
    return {"total": part.share * loss}


class PlainMethod(ClassifierTask[TrainedSettings], OnePhaseTask):
    """Train the classifier on image labels alone."""

    def losses(self, part: Part, count: Tensor | None) -> Mapping[str, Tensor]:
        """Return the loss of a part with `image`, `valid` and `label`."""
        return classification_terms(self.classifier, self.config, self.device, part)
