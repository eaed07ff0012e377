"""Settings of ACR with a transformer (ACR, CVPR 2023, supplementary, section B)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import model_validator

from wsss.cam.methods.acr_config import AdversarialSettings
from wsss.cam.methods.registry import METHODS, CamMethod
from wsss.cam.methods.transformer_config import TransformerSettings
from wsss.runtime.settings import impossible

_WARMED_UP_ONCE = "the transformer of acr-vit is warmed up only once"
# What a transformer's training has no use for, and why.
_WITHOUT_EFFECT = {
    "acr.balance": "the class scores of acr-vit do not come from the CAM that the adversary acts "
    "on: there is no gradient to compare with",
    "acr.schedule.classifier_epochs": _WARMED_UP_ONCE,
    "acr.schedule.reconstructor_epochs": _WARMED_UP_ONCE,
    "acr.schedule.joint_lr_factor": _WARMED_UP_ONCE,
}


class AcrVitSettings(TransformerSettings, AdversarialSettings):
    """Settings of ACR with a transformer; the reconstructor's encoder is convolutional."""

    method: Literal["acr-vit"] = "acr-vit"
    """Transformer and reconstructor against each other."""

    @classmethod
    def idle(cls, values: Mapping[str, Any]) -> Mapping[str, str]:
        """Phases and the bound on gradients are those of a convolutional classifier."""
        return {**super().idle(values), **_WITHOUT_EFFECT}

    @model_validator(mode="after")
    def _has_no_phases(self) -> Self:
        if self.acr.schedule.has_phases:
            raise impossible(
                "acr.schedule has phases of one network alone, or a learning rate of its own for "
                f"both, and {_WARMED_UP_ONCE}",
                key="acr.schedule",
                expected="only ramp_epochs",
                fix="set its other keys back, or use method acr",
            )
        if self.acr.balance is not None:
            raise impossible(
                f"acr.balance is {self.acr.balance:g}, and {_WITHOUT_EFFECT['acr.balance']}",
                key="acr.balance",
                expected="null",
            )
        return self


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
