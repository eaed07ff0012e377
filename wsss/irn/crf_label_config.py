"""Settings of pseudo-labels straight from class maps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from wsss.data.crf_config import CrfConfig
from wsss.irn.label_methods import LABEL_METHODS, LabelMethod, LabelSettings
from wsss.maps.background import Background, PowerBackground
from wsss.runtime.settings import Count, Fraction


class CrfLabelsSettings(LabelSettings):
    """Pseudo-labels from class maps by a refinement, without IRNet."""

    method: Literal["crf"] = "crf"
    """The method, by its name in the registry."""
    background: Background = PowerBackground()
    """Background's score: a constant, 0..1, or `{alpha: A}` for (1 - the largest class)^A, or
    `auto`: chosen from the maps without masks."""
    refine: Literal["crf", "par"] = "crf"
    """`crf` (dense CRF), `par` (pixel-adaptive refinement of AFA, CVPR 2022: no compiled code)."""
    confidence: Fraction = 0.95
    """A pixel whose best label has less than this share becomes 255; 0: none does."""
    preset: Literal["corrected", "published"] = "corrected"
    """`published`: the CRF sees the picture as in CLIP-ES's public code, its values wrapped."""
    crf: CrfConfig = CrfConfig()
    """The dense CRF, where `refine` is `crf`."""
    par_iterations: Count = 20
    """How often PAR goes over the maps, where `refine` is `par` (AFA: 20)."""

    @classmethod
    def idle(cls, values: Mapping[str, Any]) -> Mapping[str, str]:
        """Each refinement has settings of its own."""
        refine = values.get("refine", "crf")
        idle = ("par_iterations",) if refine == "crf" else ("crf", "preset")
        return dict.fromkeys(idle, f"pseudo_labels.refine is '{refine}'")

    @property
    def score_threshold(self) -> float:
        """One half: the maps are each class's share of itself and background."""
        return 0.5


LABEL_METHODS.register(
    LabelMethod(
        name="crf",
        description="background and class maps refined by a CRF, no IRNet",
        settings=CrfLabelsSettings,
        function="wsss.irn.crf_labels:make_crf_labels",
        needs_model=False,
    )
)
