"""The file of chosen background scores, and settings that wait for it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from wsss.errors import UserError
from wsss.evaluation.config import EvaluationConfig
from wsss.irn.config import LabelsConfig, PseudoLabelsConfig
from wsss.maps.chosen import (
    chosen_entry,
    is_chosen,
    read_chosen,
    surely_background,
    surely_object,
    with_chosen,
    write_chosen,
)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "thresholds.json"
    write_chosen(path, {"cam": chosen_entry("cam", 0.4, method="test", images=3)})
    return path


def test_sure_scores_lie_at_a_multiple_of_the_odds() -> None:
    # 0.4 / 0.6 * 1.5 = 1 = 0.5 / 0.5, and * 0.4 = 4 / 15.
    assert (surely_object(0.4), surely_background(0.4)) == (0.5, 0.21)
    for score in (0.01, 0.28, 0.5, 0.99):
        assert 0 < surely_background(score) <= score <= surely_object(score) < 1


def test_numbers_take_the_place_of_auto_and_of_nothing_else(file: Path) -> None:
    labels = LabelsConfig(background_threshold=0.1)
    assert with_chosen("labels", labels, file) == LabelsConfig(
        foreground_threshold=0.5, background_threshold=0.1
    )
    scores = EvaluationConfig()
    assert with_chosen("evaluation", scores, file).cam_threshold == 0.4
    # `auto` elsewhere, as of the arithmetic, is another thing.
    plain = PseudoLabelsConfig(background=0.3, precision="auto")
    assert with_chosen("pseudo_labels", plain, None) is plain


def test_what_was_chosen_is_kept_with_how(file: Path) -> None:
    found = read_chosen(file, "cam")
    assert (found["score"], found["method"], found["images"]) == (0.4, "test", 3)


def test_files_and_settings_that_do_not_go_together(file: Path) -> None:
    walk = PseudoLabelsConfig()
    numbers = LabelsConfig(foreground_threshold=0.3, background_threshold=0.05)
    with pytest.raises(UserError, match="its scores are of cam maps"):
        with_chosen("pseudo_labels", walk, file, maps="walked")
    with pytest.raises(UserError, match=r"pseudo_labels\.background is 'auto', and no chosen"):
        with_chosen("pseudo_labels", walk, None, maps="walked")
    with pytest.raises(UserError, match="nothing of labels"):
        with_chosen("labels", numbers, file)
    strict = LabelsConfig(background_threshold=0.6)
    with pytest.raises(UserError, match=r"'auto': labels\.foreground_threshold 0\.5") as caught:
        with_chosen("labels", strict, file)
    assert caught.value.where == str(file) and "the others to auto" in str(caught.value)
    with pytest.raises(UserError, match="is 'auto', and no chosen one is at hand"):
        _ = walk.score_threshold
    file.write_text("{}\n")
    with pytest.raises(UserError, match="no file of chosen background scores"):
        read_chosen(file, "cam")


@pytest.mark.parametrize("value", [None, True, [], "0.4", -1, 1.5, 10**400, float("nan")])
@pytest.mark.parametrize("place", ["maps", "cam", "score", "settings", "evaluation.cam_background"])
def test_damaged_scores_are_refused(file: Path, place: str, value: object) -> None:
    content = json.loads(file.read_text())
    entry = content["maps"]["cam"]
    holder = {"maps": content, "cam": content["maps"], "score": entry, "settings": entry}
    holder.get(place, entry["settings"])[place] = value
    file.write_text(json.dumps(content))
    with pytest.raises(UserError, match="these scores are damaged"):
        read_chosen(file, "cam")


def test_scores_that_are_not_all_there(file: Path) -> None:
    content = json.loads(file.read_text())
    del content["maps"]["cam"]["settings"]["evaluation.cam_background"]
    file.write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"these scores have no evaluation\.cam_background"):
        with_chosen("evaluation", EvaluationConfig(), file)
    content["maps"] = {}
    file.write_text(json.dumps(content))
    with pytest.raises(UserError, match="its scores are of no maps"):
        read_chosen(file, "cam")


def test_files_of_chosen_scores_are_told_from_others(file: Path, tmp_path: Path) -> None:
    assert is_chosen(file)
    for text in ("image,tags\n", "[]", '{"format": "other"}'):
        (tmp_path / "labels.csv").write_text(text)
        assert not is_chosen(tmp_path / "labels.csv")
