"""What every way to make pseudo-labels says of itself."""

from __future__ import annotations

import pytest

from wsss.irn.config import PseudoLabelsConfig
from wsss.irn.crf_label_config import CrfLabelsSettings
from wsss.irn.label_methods import LABEL_METHODS, LabelSettings


def test_a_method_has_its_own_score() -> None:
    class Own(LabelSettings):
        method: str = "own"

    assert not Own().needs_chosen
    with pytest.raises(NotImplementedError):
        _ = Own().score_threshold


def test_scores_that_wait_for_the_maps() -> None:
    assert PseudoLabelsConfig().needs_chosen
    assert not PseudoLabelsConfig(background=0.3).needs_chosen
    assert PseudoLabelsConfig(background=0.3).score_threshold == 0.3
    assert not CrfLabelsSettings().needs_chosen and CrfLabelsSettings().score_threshold == 0.5


def test_the_default_is_the_walk() -> None:
    assert type(LABEL_METHODS.parse({}, where="pseudo_labels")) is PseudoLabelsConfig
    assert LABEL_METHODS.get("irn", where="method").needs_model
    assert not LABEL_METHODS.get("crf", where="method").needs_model
