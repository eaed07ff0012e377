"""Settings of when and how strongly an adversary acts on a classifier, and of when it stops."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field
from pydantic_core import PydanticCustomError

from wsss.runtime.settings import BelowOne, Count, NonNegative, Positive, Settings, impossible

Learns = Literal["classifier", "reconstructor", "joint"]
Epochs = Annotated[int, Field(ge=0)]


class AcrSchedule(Settings):
    """Which network trains when; by default both, from the first step on, as published."""

    classifier_epochs: Epochs = 0
    """First epochs of `cam.epochs`, in which the classifier learns alone, from image labels."""
    reconstructor_epochs: Epochs = 0
    """Epochs after these, in which the reconstructor learns alone, from the classifier's maps."""
    ramp_epochs: NonNegative = 0.0
    """Epochs, once both learn, in which the classifier's adversarial weights grow from 0."""
    joint_lr_factor: Positive = 1.0
    """Learning-rate factor of the classifier once both learn, when its schedule begins anew."""

    @property
    def first_joint_epoch(self) -> int:
        """The epoch, counted from 0, in which both begin to learn."""
        return self.classifier_epochs + self.reconstructor_epochs

    @property
    def has_phases(self) -> bool:
        """Whether anything departs from both learning throughout at full rate."""
        return bool(self.first_joint_epoch) or self.joint_lr_factor != 1.0

    def phase(self, epoch: int) -> Learns:
        """Return what learns in `epoch`, counted from 0."""
        if epoch < self.classifier_epochs:
            return "classifier"
        return "reconstructor" if epoch < self.first_joint_epoch else "joint"

    def adversary(self, step: int, steps_per_epoch: int) -> float:
        """Return the factor on the adversarial weights at a step of the whole training."""
        ramp = self.ramp_epochs * steps_per_epoch
        done = step - self.first_joint_epoch * steps_per_epoch + 1
        return 1.0 if ramp <= 0 else min(1.0, max(0.0, done / ramp))


class CollapseGuard(Settings):
    """When a training against an adversary counts as collapsed, and stops.

    Each bound compares the mean over `window_steps` steps with that over the first `window_steps`
    steps in which both networks learn.
    """

    map_mean: BelowOne = 0.0
    """Stop where the mean of A_t is below this share of what it was at first; 0: never."""
    class_loss: Annotated[float, Field(gt=1)] | None = None
    """Stop where the classification loss is above this many times what it was; null: never."""
    window_steps: Count = 20
    """Steps that are averaged, so that no single batch decides."""

    @classmethod
    def idle(cls, values: Mapping[str, Any]) -> Mapping[str, str]:
        """The window matters only where there is a bound."""
        watches = values.get("map_mean", 0.0) or values.get("class_loss") is not None
        return {} if watches else {"window_steps": "guard has no bound"}

    @property
    def watches(self) -> bool:
        """Whether there is a bound at all."""
        return self.map_mean > 0 or self.class_loss is not None


def untrained_anchor(weight: float, *, key: str) -> PydanticCustomError:
    """Build what is raised where the frozen classifier would be one that has learned nothing.

    Args:
        weight: Of the erasing loss.
        key: Its setting, below `cam`.
    """
    return impossible(
        f"{key} is {weight:g}, and the classifier that is to be its anchor has not learned "
        "anything when its loss begins",
        key=key,
        expected="a trained classifier",
        fix="give the classifier epochs of its own (classifier_epochs), or name a run whose "
        f"classifier is trained ({key}_from)",
    )
