"""OC-CSE (Kweon et al., ICCV 2021): the plain classifier and an erasing loss (`oc-cse`).

Unlocking the potential of ordinary classifier: a class-specific eraser whose maps a frozen,
ordinary classifier judges.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from wsss.cam.erasing import Anchor, anchored, erased, erasing_loss
from wsss.cam.losses import classification_loss, draw_targets, normalise_cam, select_class
from wsss.cam.methods.guard import map_statistics
from wsss.cam.methods.oc_cse_config import OcCseSettings
from wsss.cam.methods.phases import restarted, steps_per_epoch
from wsss.cam.methods.plain import CONVOLUTIONAL, ClassifierTask, classification_terms
from wsss.data.transforms import normalise
from wsss.runtime.compute import autocast
from wsss.training.step import Part, Phase, StepContext


class OcCseMethod(ClassifierTask[OcCseSettings]):
    """Train a classifier on image labels, and on what a frozen one finds in erased images.

    Attributes:
        anchor: The frozen classifier.
    """

    def __init__(
        self,
        config: OcCseSettings,
        n_classes: int,
        *,
        device: torch.device,
        anchor: Anchor | None = None,
        **weights: Path | None,
    ) -> None:
        super().__init__(config, n_classes, device=device, family=CONVOLUTIONAL, **weights)
        self.anchor, copied = anchored(self.classifier, anchor, device)
        self._copies_anchor = bool(copied)
        self.modules = {**self.modules, **copied}
        settings = config.occse
        if settings.classifier_epochs or settings.joint_lr_factor != 1.0:
            factor = restarted(
                config.epochs,
                alone=settings.classifier_epochs,
                idle=0,
                joint_factor=settings.joint_lr_factor,
                lr_power=config.lr_power,
            )
            self.schedules = {"classifier": factor}

    def phases(self, batch: Mapping[str, Any], context: StepContext) -> Iterator[Phase[Part]]:
        """Yield the classifier's phase, of a batch of `image`, `valid` and `label`."""
        alone = self.config.occse.classifier_epochs
        losses = self._plain if context.epoch < alone else self._erasing
        if context.epoch >= alone:
            per_epoch = steps_per_epoch(context.total_steps, self.config.epochs)
            if self._copies_anchor and context.step == alone * per_epoch:
                self.anchor.load_state_dict(self.classifier.state_dict())
            uniform = context.split.draw(
                len(batch["image"]), lambda n: torch.rand(n, generator=context.generator)
            )
            label = batch["label"]
            batch = {**batch, "erased": draw_targets(label, uniform.to(label.device))}
        yield Phase("classifier", context.parts(batch), losses)

    def _plain(self, part: Part, _: Tensor | None) -> Mapping[str, Tensor]:
        return classification_terms(self.classifier, self.config, self.device, part)

    def _erasing(self, part: Part, _: Tensor | None) -> Mapping[str, Tensor]:
        batch, share = part.batch, part.share
        label, target = batch["label"], batch["erased"]
        x, seen = (
            normalise(batch["image"], network.normalisation, batch["valid"])
            for network in (self.classifier, self.anchor)
        )
        with autocast(self.device, self.config.precision):
            logits, cam = self.classifier(x.contiguous(memory_format=torch.channels_last))
        hidden = erased(seen, cam, target)
        with autocast(self.device, self.config.precision):
            found = self.anchor.classify(hidden.contiguous(memory_format=torch.channels_last))
        classification = share * classification_loss(logits, label, self.config.label_smoothing)
        missed = share * erasing_loss(found, label, target)
        return {
            "total": classification + self.config.occse.anchor * missed,
            "classification": classification,
            "anchor": missed,
            **map_statistics(normalise_cam(select_class(cam.detach(), target)), share),
        }
