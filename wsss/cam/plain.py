"""The plain classifier (`cam`): the baseline of every CAM method, and what they share with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD, Optimizer

from wsss.cam.config import CamConfig
from wsss.cam.losses import classification_loss
from wsss.data.transforms import normalise
from wsss.models.backbones import build_backbone, freeze_batchnorm
from wsss.models.reconstructor import CamClassifier
from wsss.models.weights import load_strict
from wsss.training.compute import autocast
from wsss.training.loop import NonFiniteLoss, StepContext


def build_classifier(
    config: CamConfig, n_classes: int, weights_file: Path | None = None
) -> CamClassifier:
    """Build the classifier with its initial weights, BatchNorm frozen where configured."""
    classifier = CamClassifier(
        build_backbone(config.backbone, weights_file), n_classes, config.head
    )
    return freeze_batchnorm(classifier) if config.freeze_batchnorm else classifier


def classifier_from_state(
    config: CamConfig, n_classes: int, state: Mapping[str, Tensor], *, where: object | None = None
) -> CamClassifier:
    """Build a trained classifier, in eval mode, from its state dict.

    Raises:
        UserError: `state` is another network's.
    """
    untrained = replace(config, backbone=replace(config.backbone, weights="none"))
    classifier = build_classifier(untrained, n_classes)
    load_strict(classifier, state, where=where)
    return classifier.eval()


def sgd(
    config: CamConfig, module: nn.Module, *, heads: Sequence[nn.Module], transposed_factor: float
) -> SGD:
    """Build SGD over what `module` trains.

    Learning-rate factors: `config.head_lr_factor` for `heads`, `transposed_factor` for transposed
    convolutions, else 1; biases have twice that and no weight decay.
    """
    factor_of: dict[nn.Parameter, float] = {}
    for part in module.modules():
        if isinstance(part, nn.ConvTranspose2d):
            factor_of.update(dict.fromkeys(part.parameters(), transposed_factor))
    for head in heads:
        factor_of.update(dict.fromkeys(head.parameters(), config.head_lr_factor))
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


def require_finite(loss: Tensor, what: str) -> None:
    """Raise `NonFiniteLoss` unless `loss` is finite."""
    if not torch.isfinite(loss):
        raise NonFiniteLoss(f"the {what} loss is {float(loss.detach())}")


class PlainMethod:
    """Train the classifier on image labels alone.

    Args:
        config: Settings of the training.
        n_classes: Classes, background not among them.
        device: Where to train.
        weights_file: Initial weights, where `config.backbone.weights` names a file.

    Attributes:
        classifier: The network whose CAMs are exported.
        modules: For checkpoints.
        optimizers: For the schedule and checkpoints.
    """

    def __init__(
        self,
        config: CamConfig,
        n_classes: int,
        *,
        device: torch.device,
        weights_file: Path | None = None,
    ) -> None:
        self.config = config
        classifier = build_classifier(config, n_classes, weights_file)
        self.classifier = classifier.to(device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
        self.modules: Mapping[str, nn.Module] = {"classifier": self.classifier}
        self.optimizers: Mapping[str, Optimizer] = {
            "classifier": sgd(
                config, self.classifier, heads=[self.classifier.head], transposed_factor=1.0
            )
        }

    def step(self, batch: dict[str, Any], context: StepContext) -> Mapping[str, Tensor | float]:
        """Take one step on a batch of `image`, `valid` and `label`.

        Raises:
            NonFiniteLoss: Before the optimiser step.
        """
        x = normalise(batch["image"], self.classifier.backbone.normalisation, batch["valid"])
        with autocast(context.device, self.config.precision):
            logits, _ = self.classifier(x.contiguous(memory_format=torch.channels_last))
        loss = classification_loss(logits, batch["label"])
        require_finite(loss, "classification")
        optimizer = self.optimizers["classifier"]
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        return {"loss": loss.detach()}
