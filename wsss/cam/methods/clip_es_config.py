"""Settings of CLIP-ES (CVPR 2023), which trains nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from wsss.cam.clip_words import BACKGROUND_WORDS, TEMPLATE
from wsss.cam.config import CamSettings
from wsss.cam.methods.registry import METHODS, CamMethod
from wsss.models.clip_config import ClipConfig
from wsss.runtime.settings import Count, Fraction, impossible


class ClipEsSettings(CamSettings):
    """Settings of CLIP-ES."""

    method: Literal["clip-es"] = "clip-es"
    """CLIP finds the classes by their names."""

    clip: ClipConfig = ClipConfig()
    """The image-text model."""

    preset: Literal["corrected", "published"] = "corrected"
    """`published`: with the public code's float16 positions, boxes short of the far edge."""

    template: str = TEMPLATE
    """The sentence that each class's words are put into, at `{}`."""

    prompts: dict[str, str] = Field(default_factory=dict)
    """Class name -> words for it; other classes have VOC's and COCO's, or go by their names."""

    background_words: tuple[str, ...] = BACKGROUND_WORDS
    """What competes with the classes; words that are classes are left out."""

    attention_layers: Count = 8
    """The attention of so many last blocks is averaged (CLIP-ES: 8)."""

    box_threshold: Fraction = 0.4
    """Share of a map's largest value that boxes are drawn around (CLIP-ES: VOC 0.4, COCO 0.7)."""

    spread: bool = True
    """Spread the maps from within their boxes along the attention."""

    long_side_limit_px: Count = 1024
    """A picture with a longer side is reduced to it: memory grows with the fourth power."""

    @classmethod
    def idle(cls, values: Mapping[str, Any]) -> Mapping[str, str]:
        """Attention and boxes matter only where maps are spread."""
        idle = () if values.get("spread", True) else ("attention_layers", "box_threshold")
        return dict.fromkeys(idle, "cam.spread is false")

    @model_validator(mode="after")
    def _template_has_one_gap(self) -> Self:
        if self.template.count("{}") != 1 or set(self.template.replace("{}", "")) & set("{}"):
            raise impossible(
                f"cam.template is {self.template!r}",
                key="template",
                expected="a sentence with {} once, where the class's words go",
            )
        return self


METHODS.register(
    CamMethod(
        name="clip-es",
        description="CLIP by the classes' names, nothing trained",
        settings=ClipEsSettings,
        source="wsss.cam.methods.clip_es:clip_es_source",
    )
)
