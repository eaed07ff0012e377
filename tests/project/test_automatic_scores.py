"""What `wsss init` leaves to the maps: the numbers of the run that is extended, and no others."""

from __future__ import annotations

from wsss.commands.init import automatic
from wsss.evaluation.config import EvaluationConfig
from wsss.irn.config import LabelsConfig, PseudoLabelsConfig
from wsss.irn.crf_label_config import CrfLabelsSettings
from wsss.irn.label_methods import LabelSettings


class WithoutBackground(LabelSettings):
    """Settings of a plug-in's labels that know no background score."""

    method: str = "own"


def test_numbers_become_auto_and_all_else_stays() -> None:
    stages = {
        "labels": LabelsConfig(foreground_threshold=0.4, background_threshold=0.1),
        "pseudo_labels": PseudoLabelsConfig(background=0.3),
        "evaluation": EvaluationConfig(cam_background=0.28),
    }
    chosen = {"foreground_threshold": "auto", "background_threshold": "auto"}
    assert automatic(stages) == {
        "labels": chosen,
        "pseudo_labels": {"background": "auto"},
        "evaluation": {"cam_background": "auto"},
    }
    left = {"labels": LabelsConfig(), "evaluation": EvaluationConfig()}
    for labels in (CrfLabelsSettings(), WithoutBackground(), PseudoLabelsConfig()):
        assert automatic({**left, "pseudo_labels": labels}) == {}
