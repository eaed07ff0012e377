"""ACR: adversarial learning of classifier and reconstructor (CVPR 2023), one alternating step.

The reconstructor update (RU) teaches a network to reconstruct one segment of the image from the
other's feature; the classifier update (CU) then moves the CAM so that it cannot: segments that
say nothing about each other are complete ones. Stochastic remnant feeding (SRF) leaves remnants
of the other segment in what RU feeds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from wsss.cam.erasing import Anchor, anchored, erased, erasing_loss
from wsss.cam.losses import (
    CuTerms,
    RuTerms,
    cu_loss,
    draw_targets,
    is_kept,
    is_predicted,
    normalise_cam,
    remnant_grid,
    resize,
    resize_grid,
    ru_loss,
    segments,
    select_class,
)
from wsss.cam.methods.acr_config import AdversarialSettings
from wsss.cam.methods.adversary import build_reconstructor, reconstructor_factors
from wsss.cam.methods.balance import pull
from wsss.cam.methods.guard import Watch, map_statistics
from wsss.cam.methods.phases import acr_schedules, steps_per_epoch
from wsss.cam.methods.plain import (
    CONVOLUTIONAL,
    ClassifierTask,
    Family,
    classification_terms,
    sgd,
)
from wsss.cam.methods.step_inputs import StepInputs, held, is_deterministic
from wsss.data.transforms import normalise
from wsss.errors import UserError
from wsss.models.backbones import IMAGENET
from wsss.models.classifier import Classifier
from wsss.runtime.compute import autocast, resolve_precision
from wsss.runtime.settings import replace
from wsss.training.distributed import Split
from wsss.training.step import Part, Phase, StepContext


class _Classified(NamedTuple):
    """A part with the classifier's CAM, and its class logits if both carry gradient."""

    inputs: StepInputs
    logits: Tensor | None
    cam: Tensor


class AcrMethod(ClassifierTask[AdversarialSettings]):
    """Train classifier and reconstructor against each other; the latter is the same for all.

    Attributes:
        reconstructor: The classifier's adversary.
        anchor: The frozen classifier of the erasing loss; None: there is no such loss.
    """

    def __init__(
        self,
        config: AdversarialSettings,
        n_classes: int,
        *,
        device: torch.device,
        family: Family = CONVOLUTIONAL,
        anchor: Anchor | None = None,
        **weights: Path | None,
    ) -> None:
        super().__init__(config, n_classes, device=device, family=family, **weights)
        reconstructor = build_reconstructor(config, n_classes, weights.get("weights_file"))
        self.reconstructor = reconstructor.to(device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
        factors = reconstructor_factors(config, self.reconstructor)
        self.modules = {**self.modules, "reconstructor": self.reconstructor}
        self.optimizers = {
            **self.optimizers,
            "reconstructor": sgd(config, self.reconstructor, factors),
        }
        self.anchor: Classifier | None = None
        self._copies_anchor = False
        if config.acr.anchor:
            self.anchor, copied = anchored(self.classifier, anchor, device)
            self._copies_anchor = bool(copied)
            self.modules = {**self.modules, **copied}
        self._watch: Watch | None = None
        if config.acr.guard.watches:
            # It sums in float64, which Apple's GPUs do not have.
            self._watch = Watch(config.acr.guard).to("cpu" if device.type == "mps" else device)
            self.modules = {**self.modules, "watch": self._watch}
        schedule = config.acr.schedule
        if schedule.has_phases:
            self.schedules = acr_schedules(
                config.epochs,
                alone=schedule.classifier_epochs,
                idle=schedule.reconstructor_epochs,
                joint_factor=schedule.joint_lr_factor,
                lr_power=config.lr_power,
            )

    def phases(self, batch: Mapping[str, Any], context: StepContext) -> Iterator[Phase[Any]]:
        """Yield RU, then CU, or what the schedule has of it, of a batch.

        Args:
            batch: `image`, `valid` and `label`.
            context: What step this is.

        Raises:
            UserError: The CAMs have collapsed, or a bound on gradients cannot be kept.
        """
        acr = self.config.acr
        learns = acr.schedule.phase(context.epoch)
        if learns == "classifier":
            yield Phase("classifier", context.parts(batch), self._alone)
            return
        per_epoch = steps_per_epoch(context.total_steps, self.config.epochs)
        if self._copies_anchor and context.step == acr.schedule.first_joint_epoch * per_epoch:
            assert self.anchor is not None
            self.anchor.load_state_dict(self.classifier.state_dict())
        inputs = self.prepare(batch, context).parts(context.split)
        # Kept with gradient only where there is one part: activations of several would not fit.
        alone = len(inputs) == 1 and learns == "joint"
        parts = [
            _Classified(part, *self._classify_for_both(part.x, alone=alone)) for part in inputs
        ]
        q = {"q": acr.q(context.epoch)} if acr.srf else {}

        def images_kept() -> Tensor:
            maps = [self.target_map(part.inputs, part.cam.detach()) for part in parts]
            kept = [is_kept(map, part.grid).sum() for map, part in zip(maps, inputs, strict=True)]
            return torch.stack(kept).sum()

        ru = partial(Phase, "reconstructor", parts, self._ru, count=images_kept, prefix="ru_")
        if learns == "reconstructor":
            yield ru(logged=q)
            return
        self._check_balance(inputs)
        yield ru()
        cu = partial(
            self._cu,
            split=context.split,
            adversary=acr.schedule.adversary(context.step, per_epoch),
        )
        yield Phase("classifier", parts, cu, prefix="cu_", logged=q, finish=self._finish_cu)

    def _alone(self, part: Part, _: Tensor | None) -> Mapping[str, Tensor]:
        return classification_terms(self.classifier, self.config, self.device, part)

    def _check_balance(self, parts: Sequence[StepInputs]) -> None:
        if self.config.acr.balance is not None and len(parts) > 1:
            raise UserError(
                "cam.acr.balance bounds a gradient of the whole batch, and the batch goes through "
                f"the networks in {len(parts)} parts",
                where="compute.micro_batch.cam",
                expected="null, or at least a process's share of cam.batch_size",
                fix="leave micro_batch away, use more GPUs, or set cam.acr.balance to null",
            )

    def _ru(self, part: _Classified, kept_total: Tensor | None) -> Mapping[str, Tensor]:
        return self.reconstructor_terms(part.inputs, part.cam, kept_total)._asdict()

    def _cu(
        self, part: _Classified, _: Tensor | None, *, split: Split, adversary: float
    ) -> Mapping[str, Tensor]:
        logits, cam, inputs = part.logits, part.cam, part.inputs
        if logits is None:
            with autocast(self.device, self.config.precision):
                logits, cam = self.classifier(inputs.x)
        target_map = self.target_map(inputs, cam)
        terms = self._classifier_terms(inputs, logits, cam, target_map, adversary)
        found = {**terms._asdict(), **map_statistics(target_map, inputs.share)}
        found.update(self._pulled(terms, cam, adversary, split))
        if self.anchor is not None:
            missed = inputs.share * self._erasing(inputs, cam)
            found["anchor"] = missed
            found["total"] = found["total"] + self.config.acr.anchor * missed
        return found

    def _finish_cu(self, terms: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        if self._watch is not None:
            self._watch.observe(terms["map_mean"], terms["classification"])
        # Squares add up over parts and processes; norms are what is told.
        return {
            name: term.sqrt() if name.endswith("_gradient") else term
            for name, term in terms.items()
        }

    def _pulled(
        self, terms: CuTerms, cam: Tensor, adversary: float, split: Split
    ) -> Mapping[str, Tensor]:
        """Return the total with its adversarial gradient bounded, and both gradients' squares."""
        weights = self.config.acr.weights
        pulls = pull(
            cam,
            weights.cu_class * terms.classification,
            -(adversary * weights.cu_target) * terms.target
            - adversary * weights.cu_nontarget * terms.nontarget,
            self.config.acr.balance,
            split,
        )
        if pulls is None:
            return {}
        found = {
            "total": pulls.loss,
            "class_gradient": pulls.classification,
            "adversarial_gradient": pulls.adversarial,
        }
        if self.config.acr.balance is not None:
            # The same in each process, whose values are added up.
            found["adversarial_scale"] = pulls.scale / split.processes.size
        return found

    def _erasing(self, inputs: StepInputs, cam: Tensor) -> Tensor:
        assert self.anchor is not None and inputs.anchor_x is not None
        hidden = erased(inputs.anchor_x, cam, inputs.target)
        with autocast(self.device, self.config.precision):
            logits = self.anchor.classify(hidden.contiguous(memory_format=torch.channels_last))
        return erasing_loss(logits, inputs.label, inputs.target)

    def _classify_for_both(self, x: Tensor, *, alone: bool) -> tuple[Tensor | None, Tensor]:
        """Return the CAM that RU takes, and the class logits if CU may take both as well.

        The classifier does not change between the updates. Without dropout its eval pass, which
        RU asks for, and its training pass are one computation: done once, with gradient, if these
        images are `alone` in the step.
        """
        with autocast(self.device, self.config.precision):
            if alone and is_deterministic(self.classifier):
                logits, cam = self.classifier(x)
                return logits, cam
            self.classifier.eval()
            with torch.no_grad():
                _, cam = self.classifier(x)
            self.classifier.train()
            return None, cam

    def prepare(self, batch: Mapping[str, Any], context: StepContext) -> StepInputs:
        """Normalise a batch and draw its targets and remnant grids from `context.generator`."""
        acr, generator, split = self.config.acr, context.generator, context.split
        image, valid, label = batch["image"], batch["valid"], batch["label"]
        count = image.shape[0]
        uniform = split.draw(count, lambda n: torch.rand(n, generator=generator))
        target = draw_targets(label, uniform.to(label.device))
        side = self.config.decoded_px
        grid = None
        if acr.srf:
            cells = int(torch.randint(acr.grid_min, acr.grid_max + 1, (1,), generator=generator))
            q = acr.q(context.epoch)
            drawn = split.draw(count, lambda n: remnant_grid(n, cells, q, generator))
            grid = resize_grid(drawn.to(image.device), side)
        x = normalise(image, self.classifier.normalisation, valid)
        anchor_x = None
        if self.anchor is not None:
            anchor_x = normalise(image, self.anchor.normalisation, valid)
        return StepInputs(
            x=x.contiguous(memory_format=torch.channels_last),
            image=resize(normalise(image, IMAGENET, valid), side),
            label=label,
            target=target,
            grid=grid,
            anchor_x=anchor_x,
        )

    def target_map(self, inputs: StepInputs, cam: Tensor) -> Tensor:
        """Return A_t: the target's CAM, normalised at its own size, then resized."""
        return resize(normalise_cam(select_class(cam, inputs.target)), inputs.side_px)

    def reconstructor_terms(
        self, inputs: StepInputs, cam: Tensor, kept_total: Tensor | None = None
    ) -> RuTerms:
        """Return RU's loss, with gradient to the reconstructor only.

        Args:
            inputs: The batch and its draws, or a part of it.
            cam: The classifier's raw logits, (B, C, h, w).
            kept_total: Images of the whole batch in the non-target term; None: `inputs` is it.
        """
        target_map = self.target_map(inputs, cam.detach())
        target_segment, nontarget_segment = segments(target_map, inputs.grid)
        with autocast(self.device, self.config.precision):
            logits, feature = self.reconstructor.encode(inputs.x)
            assert logits is not None
        # One decoder call for all three: its normalisation is per image, so only dropout's draws
        # differ from three calls.
        full, from_target, from_nontarget = self._decode(
            feature, inputs.side_px, [None, target_segment, nontarget_segment]
        )
        return ru_loss(
            logits,
            inputs.label,
            inputs.image,
            (full, from_target, from_nontarget),
            target_map,
            inputs.grid,
            self.config.acr.weights,
            share=inputs.share,
            kept_total=kept_total,
        )

    def _decode(
        self, feature: Tensor, side_px: int, masks: Sequence[Tensor | None]
    ) -> tuple[Tensor, ...]:
        """Reconstruct the image from each masked copy of X, all in one decoder call.

        Args:
            feature: X at the encoder's stride, (B, d, h, w).
            side_px: The decoded side P.
            masks: (B, 1, P, P) each; None is the whole feature, without gradient to it.

        Returns:
            One (B, 3, P, P) each.
        """
        wanted = self.config.acr.decoder_precision
        precision = self.config.precision if wanted == "same" else wanted
        if wanted != "same":
            # Before it is enlarged and copied: these tensors are the step's largest.
            feature = feature.to(resolve_precision(self.device, precision))
        feature = resize(feature, side_px)
        copies = [
            feature.detach() if mask is None else feature * mask.to(feature.dtype) for mask in masks
        ]
        with autocast(self.device, precision):
            decoded: Tensor = self.reconstructor.decode(torch.cat(copies))
        return decoded.chunk(len(copies))

    def classifier_terms(self, inputs: StepInputs, class_logits: Tensor, cam: Tensor) -> CuTerms:
        """Return CU's loss, with gradient to the classifier through `class_logits` and `cam`.

        The reconstructor is in eval mode and without gradient to its parameters; it is back in
        training mode on return.
        """
        return self._classifier_terms(
            inputs, class_logits, cam, self.target_map(inputs, cam), adversary=1.0
        )

    def _classifier_terms(
        self,
        inputs: StepInputs,
        class_logits: Tensor,
        cam: Tensor,
        target_map: Tensor,
        adversary: float,
    ) -> CuTerms:
        weights = self.config.acr.weights
        if adversary != 1.0:
            weights = replace(
                weights,
                cu_target=adversary * weights.cu_target,
                cu_nontarget=adversary * weights.cu_nontarget,
            )
        with held(self.reconstructor):
            with torch.no_grad(), autocast(self.device, self.config.precision):
                _, feature = self.reconstructor.encode(inputs.x, classify=False)
            from_target, from_nontarget = self._decode(
                feature, inputs.side_px, [target_map, 1 - target_map]
            )
        return cu_loss(
            class_logits,
            inputs.label,
            inputs.image,
            (from_target, from_nontarget),
            target_map,
            is_predicted(cam, inputs.target, inputs.side_px),
            weights,
            share=inputs.share,
            label_smoothing=self.config.label_smoothing,
        )
