"""Settings of OC-CSE (ICCV 2021): the plain classifier and an erasing loss."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from wsss.cam.methods.adversary_settings import untrained_anchor
from wsss.cam.methods.plain_config import ConvolutionalSettings
from wsss.cam.methods.registry import METHODS, CamMethod
from wsss.runtime.settings import Positive, Settings, impossible


class ErasingConfig(Settings):
    """OC-CSE (ICCV 2021): a frozen, trained classifier may not find again what a CAM has erased."""

    anchor: Positive = 1.0
    """Weight of the erasing loss; that of the image labels has 1."""
    anchor_from: str | None = None
    """The run whose classifier is the frozen one; null: this training's own, as it is when
    `classifier_epochs` are over."""
    classifier_epochs: Annotated[int, Field(ge=0)] = 1
    """First epochs of `cam.epochs`, which go without the erasing loss."""
    joint_lr_factor: Positive = 1.0
    """Learning-rate factor after these epochs, when the schedule begins anew."""


class OcCseSettings(ConvolutionalSettings):
    """Settings of OC-CSE."""

    method: Literal["oc-cse"] = "oc-cse"
    """The plain classifier and an erasing loss."""
    occse: ErasingConfig = ErasingConfig()
    """The erasing loss of `oc-cse`."""

    @property
    def anchor_run(self) -> str | None:
        """The run whose trained classifier stays as it is beside the training."""
        return self.occse.anchor_from

    @model_validator(mode="after")
    def _anchor_is_trained(self) -> Self:
        if self.occse.anchor_from is None and not self.occse.classifier_epochs:
            raise untrained_anchor(self.occse.anchor, key="occse.anchor")
        if self.occse.classifier_epochs >= self.epochs:
            raise impossible(
                f"occse.classifier_epochs is {self.occse.classifier_epochs} of {self.epochs} "
                "epochs",
                key="occse.classifier_epochs",
                expected="fewer than cam.epochs: the rest has the erasing loss",
            )
        return self


METHODS.register(
    CamMethod(
        name="oc-cse",
        description="the plain classifier and an erasing loss",
        settings=OcCseSettings,
        task="wsss.cam.methods.oc_cse:OcCseMethod",
        classifier="wsss.cam.methods.plain:build_classifier",
        has_features=True,
    )
)
