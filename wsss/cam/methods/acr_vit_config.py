"""Settings of ACR with a transformer (ACR, CVPR 2023, supplementary, section B)."""

from __future__ import annotations

from typing import Literal

from wsss.cam.methods.acr_config import AdversarialSettings
from wsss.cam.methods.registry import METHODS, CamMethod
from wsss.cam.methods.transformer_config import TransformerSettings


class AcrVitSettings(TransformerSettings, AdversarialSettings):
    """Settings of ACR with a transformer; the reconstructor's encoder is convolutional."""

    method: Literal["acr-vit"] = "acr-vit"
    """Transformer and reconstructor against each other."""


METHODS.register(
    CamMethod(
        name="acr-vit",
        description="a transformer against a reconstructor",
        settings=AcrVitSettings,
        task="wsss.cam.methods.acr_vit:AcrVitMethod",
        classifier="wsss.cam.methods.transformer:build_transformer",
        has_reconstructor=True,
        has_attention=True,
    )
)
