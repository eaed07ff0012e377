"""ACR's reconstructor: how it is built, and what of it learns how fast."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from torch import nn

from wsss.cam.methods.acr_config import AdversarialSettings
from wsss.models.backbones import build_backbone, freeze_batchnorm
from wsss.models.reconstructor import Reconstructor


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


def reconstructor_factors(
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
