"""Settings that CAM methods share, and those of CAM export; a method's own lie with it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from wsss.runtime.settings import (
    BelowOne,
    Count,
    Fraction,
    Positive,
    Precision,
    Seed,
    Settings,
    impossible,
)


class CamSettings(Settings):
    """Settings of a CAM method; each adds its own to these."""

    method: str
    """The method, by its name in the registry."""

    @property
    def anchor_run(self) -> str | None:
        """The run whose trained classifier stays as it is beside the training; None: none."""
        return None

    @property
    def cams_run(self) -> str | None:
        """The run whose CAMs are made into this one's; None: none."""
        return None

    @property
    def seeds_root(self) -> str | None:
        """The key in `roots:` of a folder that the maps are read from; None: there is none."""
        return None


class TrainedSettings(CamSettings):
    """What every training of a classifier on image labels has: images, crops, augmentation."""

    epochs: Count = 6
    """Passes over the training images."""
    batch_size: Count = 8
    """Images a step."""
    crop_px: Count = 256
    """Side of the square training crops."""
    long_side_min_px: Count = 384
    """Smallest length the image's long side is resized to before the crop."""
    long_side_max_px: Count = 512
    """Largest length the image's long side is resized to before the crop."""
    rand_augment_operations: Annotated[int, Field(ge=0)] = 0
    """RandAugment: operations an image, before the crop (MCTformer: 2); 0: none."""
    rand_augment_magnitude: Annotated[int, Field(ge=0, le=30)] = 9
    """RandAugment: strength of the operations, 0 to 30 (MCTformer: 9)."""
    erasing: Fraction = 0.0
    """Probability that a rectangle of the crop becomes noise (MCTformer: 0.25)."""
    label_smoothing: BelowOne = 0.0
    """What the classifier's image labels are softened by: e makes 0 and 1 into e/2 and 1 - e/2."""
    ema: BelowOne = 0.0
    """Decay, a step, of an average of the classifier's weights that is exported in their place
    (0.99: of about the last hundred steps); 0: the last weights themselves."""
    precision: Precision = "auto"
    """Arithmetic of the networks; losses are float32 always."""
    seed: Seed = 0
    """Decides initial weights, order, augmentation and every draw."""

    @classmethod
    def idle(cls, values: Mapping[str, Any]) -> Mapping[str, str]:
        """The strength of RandAugment matters only where there are operations."""
        operations = values.get("rand_augment_operations", 0)
        reason = "rand_augment_operations is 0"
        return {} if operations else {"rand_augment_magnitude": reason}

    @model_validator(mode="after")
    def _long_side_has_a_range(self) -> Self:
        if self.long_side_min_px > self.long_side_max_px:
            raise impossible(
                f"cam.long_side_min_px is {self.long_side_min_px} and cam.long_side_max_px "
                f"{self.long_side_max_px}",
                key="long_side_min_px",
                expected="1 <= long_side_min_px <= long_side_max_px",
            )
        return self


class ExportConfig(Settings):
    """Multi-scale, mirrored CAM inference into the CAM store."""

    model_from: str | None = None
    """The run whose trained classifier gives the CAMs, so that several exports share one training;
    null: this run's own."""
    scales: Annotated[tuple[Positive, ...], Field(min_length=1)] = (0.5, 1.0, 1.5, 2.0)
    """Sizes of the image the CAMs are summed over, relative to its own."""
    mirror: bool = True
    """Add the mirror image of each size."""
    precision: Precision = "auto"
    """Arithmetic of the network; `auto`: bfloat16 where the device has instructions for it."""
    refine: Literal["none", "patch-attention", "lpcam"] = "none"
    """`patch-attention`: spread each CAM along a transformer's attention between patches; `lpcam`:
    in place of CAMs, similarity to clusters of features (see `lpcam`)."""
    refine_from: str | None = None
    """The run whose transformer gives that attention; null: the CAMs' own, if it is one."""

    @classmethod
    def idle(cls, values: Mapping[str, Any]) -> Mapping[str, str]:
        """A lender of attention matters only where CAMs are refined."""
        refine = values.get("refine", "none")
        lends = refine == "patch-attention"
        return {} if lends else {"refine_from": f"export.refine is '{refine}'"}

    @property
    def code(self) -> str | None:
        """What gives the maps that are no CAMs, called like `wsss.cam.lpcam.lpcam_source`."""
        return "wsss.cam.lpcam:lpcam_source" if self.refine == "lpcam" else None
