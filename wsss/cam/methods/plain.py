"""The plain classifier (`cam`): the baseline of every CAM method, and what they share with it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

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


class ClassifierBuilder(Protocol):
    """Builds a classifier with its initial weights; each family takes the file that it needs."""

    def __call__(
        self,
        config: Any,
        n_classes: int,
        *,
        weights_file: Path | None = None,
        transformer_weights_file: Path | None = None,
    ) -> Classifier:
        """Return it on the CPU."""
        ...


@dataclass(frozen=True)
class Family:
    """A kind of classifier, which any method can train.

    Attributes:
        build: Builds it.
        optimizer: Its optimiser.
        schedule: Factor on the optimiser's learning rate; None: the training's poly schedule.
    """

    build: ClassifierBuilder
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


class PlainMethod(OnePhaseTask):
    """Train the classifier on image labels alone.

    Args:
        config: Settings of the training.
        n_classes: Classes, background not among them.
        device: Where to train.
        weights_file: Initial weights, where `config.backbone.weights` names a file.
        transformer_weights_file: The same, where `config.vit.weights` names one.
        family: Kind of classifier.

    Attributes:
        classifier: The network whose CAMs are exported.
        modules: For checkpoints.
        optimizers: For the schedule and checkpoints.
        schedules: Of optimisers that depart from the training's poly schedule.
    """

    def __init__(
        self,
        config: TrainedSettings,
        n_classes: int,
        *,
        device: torch.device,
        weights_file: Path | None = None,
        transformer_weights_file: Path | None = None,
        family: Family = CONVOLUTIONAL,
    ) -> None:
        self.config = config
        self.classifier = family.build(
            config,
            n_classes,
            weights_file=weights_file,
            transformer_weights_file=transformer_weights_file,
        )
        self.classifier.to(device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
        self.modules = {"classifier": self.classifier}
        self.optimizers = {"classifier": family.optimizer(config, self.classifier)}
        self.schedules: Mapping[str, Schedule] = family.schedules(config)

    def losses(self, part: Part, count: Tensor | None) -> Mapping[str, Tensor]:
        """Return the loss of a part with `image`, `valid` and `label`."""
        batch = part.batch
        x = normalise(batch["image"], self.classifier.normalisation, batch["valid"])
        with autocast(x.device, self.config.precision):
            logits = self.classifier.classify(x.contiguous(memory_format=torch.channels_last))
        return {"total": part.share * classification_loss(logits, batch["label"])}
