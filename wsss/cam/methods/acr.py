"""ACR: adversarial learning of classifier and reconstructor (CVPR 2023), one alternating step.

The reconstructor update (RU) teaches a network to reconstruct one segment of the image from the
other's feature; the classifier update (CU) then moves the CAM so that it cannot: segments that
say nothing about each other are complete ones. Stochastic remnant feeding (SRF) leaves remnants
of the other segment in what RU feeds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from timm.layers.drop import DropPath
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

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
from wsss.cam.methods.plain import CONVOLUTIONAL, ClassifierTask, Family, sgd
from wsss.data.transforms import normalise
from wsss.models.backbones import IMAGENET, build_backbone, freeze_batchnorm
from wsss.models.reconstructor import Reconstructor
from wsss.runtime.compute import autocast, resolve_precision
from wsss.training.distributed import Split
from wsss.training.step import Phase, StepContext


def build_reconstructor(
    config: AdversarialSettings, n_classes: int, weights_file: Path | None = None
) -> Reconstructor:
    """Build the reconstructor, its encoder with the same initial weights as the classifier."""
    acr = config.acr
    reconstructor = Reconstructor(
        build_backbone(config.backbone, weights_file),
        n_classes,
        head=config.head,
        levels=acr.feature_levels,
        channels=acr.feature_channels,
        depth=acr.decoder_depth,
        width=acr.decoder_width,
        preset=acr.preset,
    )
    return freeze_batchnorm(reconstructor) if config.freeze_batchnorm else reconstructor


def is_deterministic(module: nn.Module) -> bool:
    """Return whether `module`, in training mode, computes what it would in eval mode."""
    for part in module.modules():
        if isinstance(part, _DropoutNd) and part.p > 0:
            return False
        if isinstance(part, DropPath) and part.drop_prob:
            return False
        if isinstance(part, _BatchNorm) and part.training:
            return False
    return True


@contextmanager
def _frozen(module: nn.Module) -> Iterator[None]:
    """Keep gradients from the parameters of `module`, and dropout from acting."""
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    for parameter in trained:
        parameter.requires_grad_(False)
    module.eval()
    try:
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)
        module.train()


def _reconstructor_factors(
    config: AdversarialSettings, reconstructor: Reconstructor
) -> Iterator[tuple[nn.Module, float]]:
    """Yield the parts that do not start from pretrained weights, and their learning-rate factors.

    The transposed convolutions come last: they are parts of the decoder with one of their own.
    """
    yield reconstructor.encoder.head, config.head_lr_factor
    yield reconstructor.gather, config.acr.decoder_lr_factor
    yield reconstructor.decoder, config.acr.decoder_lr_factor
    for part in reconstructor.decoder.modules():
        if isinstance(part, nn.ConvTranspose2d):
            yield part, config.acr.transposed_lr_factor


@dataclass(frozen=True)
class StepInputs:
    """What both updates of a step share, of a batch or of a part of it.

    Attributes:
        x: (B, 3, S, S), normalised for the networks.
        image: The reconstruction's aim I, ImageNet-normalised, (B, 3, P, P), P the decoded side.
        label: float (B, C).
        target: int64 (B,), the class drawn for each image.
        grid: g at the decoded side, (B, 1, P, P); None without remnant feeding.
        share: What part of the whole batch these images are.
    """

    x: Tensor
    image: Tensor
    label: Tensor
    target: Tensor
    grid: Tensor | None
    share: float = 1.0

    @property
    def side_px(self) -> int:
        """The decoded side P."""
        return self.image.shape[-1]

    def parts(self, split: Split) -> list[StepInputs]:
        """Return what goes together through the networks."""
        images = len(self.image)
        return [
            StepInputs(
                x=self.x[part],
                image=self.image[part],
                label=self.label[part],
                target=self.target[part],
                grid=None if self.grid is None else self.grid[part],
                share=split.share(part, images),
            )
            for part in split.parts(images)
        ]


class _Classified(NamedTuple):
    """A part with the classifier's CAM, and its class logits if both carry gradient."""

    inputs: StepInputs
    logits: Tensor | None
    cam: Tensor


class AcrMethod(ClassifierTask[AdversarialSettings]):
    """Train classifier and reconstructor against each other; the latter is the same for all.

    Attributes:
        reconstructor: The classifier's adversary.
    """

    def __init__(
        self,
        config: AdversarialSettings,
        n_classes: int,
        *,
        device: torch.device,
        family: Family = CONVOLUTIONAL,
        **weights: Path | None,
    ) -> None:
        super().__init__(config, n_classes, device=device, family=family, **weights)
        reconstructor = build_reconstructor(config, n_classes, weights.get("weights_file"))
        self.reconstructor = reconstructor.to(device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
        factors = _reconstructor_factors(config, self.reconstructor)
        self.modules = {**self.modules, "reconstructor": self.reconstructor}
        self.optimizers = {
            **self.optimizers,
            "reconstructor": sgd(config, self.reconstructor, factors),
        }

    def phases(
        self, batch: Mapping[str, Any], context: StepContext
    ) -> Iterator[Phase[_Classified]]:
        """Yield RU, then CU, of a batch of `image`, `valid` and `label`."""
        acr, inputs = self.config.acr, self.prepare(batch, context).parts(context.split)
        # Kept with gradient only where there is one part: activations of several would not fit.
        alone = len(inputs) == 1
        parts = [
            _Classified(part, *self._classify_for_both(part.x, alone=alone)) for part in inputs
        ]
        q = {"q": acr.q(context.epoch)} if acr.srf else {}

        def images_kept() -> Tensor:
            maps = [self.target_map(part.inputs, part.cam.detach()) for part in parts]
            kept = [is_kept(map, part.grid).sum() for map, part in zip(maps, inputs, strict=True)]
            return torch.stack(kept).sum()

        yield Phase("reconstructor", parts, self._ru, count=images_kept, prefix="ru_")
        yield Phase("classifier", parts, self._cu, prefix="cu_", logged=q)

    def _ru(self, part: _Classified, kept_total: Tensor | None) -> Mapping[str, Tensor]:
        return self.reconstructor_terms(part.inputs, part.cam, kept_total)._asdict()

    def _cu(self, part: _Classified, _: Tensor | None) -> Mapping[str, Tensor]:
        logits, cam = part.logits, part.cam
        if logits is None:
            with autocast(self.device, self.config.precision):
                logits, cam = self.classifier(part.inputs.x)
        return self.classifier_terms(part.inputs, logits, cam)._asdict()

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
        return StepInputs(
            x=x.contiguous(memory_format=torch.channels_last),
            image=resize(normalise(image, IMAGENET, valid), side),
            label=label,
            target=target,
            grid=grid,
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
        target_map = self.target_map(inputs, cam)
        with _frozen(self.reconstructor):
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
            self.config.acr.weights,
            share=inputs.share,
        )
