"""Settings of maps and masks that another program has made."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from wsss.cam.config import CamSettings
from wsss.cam.methods.registry import METHODS, CamMethod
from wsss.maps.background import Background
from wsss.runtime.settings import Fraction, NonNegative, impossible

# What says which class a class-free mask is of, and so is idle where masks come with their class.
_OF_MASKS = (
    *("cams_from", "file", "background", "min_coverage", "min_share", "min_score"),
    "keep_uncovered",
)


class ImportedSettings(CamSettings):
    """Settings of maps and masks from elsewhere."""

    method: Literal["imported"] = "imported"
    """Maps or masks that another program has made."""

    seeds: str = Field(default="seeds", min_length=1)
    """Imported maps: key in `roots:` of the folder that they lie in."""

    kind: Literal["class-maps", "label-maps", "masks"] = "class-maps"
    """Imported are `class-maps` (one a picture and class: NAME/CLASS.png or NAME.npz), `label-maps`
    (NAME.png), or `masks` (of any segmenter, without classes, COCO's run lengths: NAME.json)."""

    cams_from: str | None = None
    """Imported masks: the run whose CAMs say which class each is of."""

    file: str = ""
    """Imported masks: one COCO JSON of all pictures, in the folder; empty: NAME.json each."""

    background: Background = 0.4
    """Imported masks: background's score beside those CAMs, or `{alpha: A}` for (1 - the largest
    class)^A. A class's region is where its CAM is the largest."""

    min_coverage: Fraction = 0.5
    """Imported masks: one is taken if more than this share of it is in its class's region (SEPL,
    arXiv 2305.05803: 0.5) ..."""

    min_share: Fraction = 0.85
    """... or where it holds at least this share of the region (SEPL: 0.85)."""

    min_score: NonNegative = 0.0
    """Imported masks whose `score` or `predicted_iou` is lower are left out; 0: all are used."""

    keep_uncovered: bool = True
    """Where no imported mask at all lies, the CAM's region stays (SEPL)."""

    @classmethod
    def idle(cls, values: Mapping[str, Any]) -> Mapping[str, str]:
        """How masks get their class matters only for those that come without."""
        kind = values.get("kind", "class-maps")
        return {} if kind == "masks" else dict.fromkeys(_OF_MASKS, f"cam.kind is '{kind}'")

    @property
    def cams_run(self) -> str | None:
        """The run whose CAMs say which class each mask is of."""
        return self.cams_from

    @property
    def seeds_root(self) -> str | None:
        """The key of the folder."""
        return self.seeds

    @model_validator(mode="after")
    def _masks_get_a_class(self) -> Self:
        if self.kind == "masks" and self.cams_from is None:
            raise impossible(
                "cam.kind is 'masks', and cam.cams_from names no run",
                key="cams_from",
                expected="the run whose CAMs say which class each mask is of",
            )
        return self


METHODS.register(
    CamMethod(
        name="imported",
        description="maps or masks of another program, nothing trained",
        settings=ImportedSettings,
        source="wsss.cam.methods.imported:imported_source",
    )
)
