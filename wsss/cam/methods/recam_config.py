"""Settings of ReCAM (CVPR 2022): the plain classifier, then a second one in softmax."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import model_validator

from wsss.cam.methods.plain_config import ConvolutionalSettings
from wsss.cam.methods.registry import METHODS, CamMethod
from wsss.runtime.settings import Count, Positive, Settings, impossible


class ReactivationConfig(Settings):
    """ReCAM (CVPR 2022): each class is told from the others by what its own CAM covers."""

    classifier_epochs: Count = 2
    """First epochs of `cam.epochs`, which train the plain classifier; the rest (ReCAM: 4) trains
    the second one, too."""
    joint_lr_factor: Positive = 0.005
    """Learning-rate factor after these epochs, when the schedule begins anew (ReCAM: 0.005)."""
    weight: Positive = 1.0
    """Weight of the softmax loss; that of the image labels has 1 (ReCAM: 1)."""


class ReCamSettings(ConvolutionalSettings):
    """Settings of ReCAM."""

    method: Literal["recam"] = "recam"
    """The plain classifier, then a second one in softmax."""
    recam: ReactivationConfig = ReactivationConfig()
    """The second classifier of `recam`."""

    @model_validator(mode="after")
    def _both_have_epochs(self) -> Self:
        if self.recam.classifier_epochs >= self.epochs:
            raise impossible(
                f"recam.classifier_epochs is {self.recam.classifier_epochs} of {self.epochs} "
                "epochs",
                key="recam.classifier_epochs",
                expected="fewer than cam.epochs: the rest has the second classifier",
            )
        return self


METHODS.register(
    CamMethod(
        name="recam",
        description="the plain classifier, then a second one in softmax",
        settings=ReCamSettings,
        task="wsss.cam.methods.recam:ReCamMethod",
        classifier="wsss.cam.methods.recam:build_classifier",
    )
)
