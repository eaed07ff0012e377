"""Runs that use what another run trains: named, there, and not in a circle."""

from __future__ import annotations

from typing import Any

import pytest

from wsss.errors import UserError
from wsss.project.config import ProjectConfig, resolve


def project(**runs: Any) -> ProjectConfig:
    base = {"root": "own", "index": {"format": "folder"}}
    return resolve({"roots": {"own": "x"}, "runs": {k: {**base, **v} for k, v in runs.items()}})


def taught_by(run: str | None, **more: Any) -> dict[str, Any]:
    return {"segmentation": {"labels": "predicted"}, "self_labels": {"model_from": run}, **more}


def test_several_rounds_are_several_runs() -> None:
    config = project(a={}, b=taught_by("a"), c={"extends": "b", "self_labels": {"model_from": "b"}})
    assert [config.run(name).labels_run for name in "abc"] == [None, "a", "b"]
    # What is inherited matters only where the labels are predicted.
    back = {"extends": "b", "segmentation": {"labels": "pseudo"}}
    assert project(a={}, b=taught_by("a"), d=back).run("d").labels_run is None


@pytest.mark.parametrize(
    ("runs", "place", "words"),
    [
        ({"a": taught_by(None)}, "a.self_labels.model_from", "nothing says by which"),
        ({"a": {}, "b": taught_by("aa")}, "b.self_labels.model_from", "did you mean 'a'"),
        ({"a": taught_by("a")}, "a.self_labels.model_from", "a -> a take their labels from each"),
        (
            {"a": taught_by("b"), "b": taught_by("a")},
            "a.self_labels.model_from",
            "a -> b -> a take their labels from each other in a circle",
        ),
        (
            {"a": {"stop_after": "pseudo_label"}, "b": taught_by("a")},
            "b.self_labels.model_from",
            "'a' stops after pseudo_label and trains no segmentation",
        ),
        (
            {"a": {}, "b": taught_by("a", stop_after="cam")},
            "b.stop_after",
            "stops after the CAMs, and has none",
        ),
    ],
)
def test_a_teacher_that_cannot_be(runs: dict[str, Any], place: str, words: str) -> None:
    with pytest.raises(UserError) as caught:
        project(**runs)
    assert caught.value.where == f"runs.{place}" and words in str(caught.value)
