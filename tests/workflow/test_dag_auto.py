"""Real Snakemake with background scores that are `auto`: chosen once, before what needs them."""

from __future__ import annotations

import csv

import pytest
from conftest import Project

from wsss.maps.chosen import read_chosen

RUNS = """
  tiny-auto:
    extends: tiny
    cam: {method: cam}
    labels: {foreground_threshold: auto, background_threshold: auto}
    pseudo_labels: {background: auto}
    evaluation: {cam_background: auto}
    stop_after: pseudo_label
  tiny-auto-crf:
    extends: tiny-auto
    pseudo_labels: {method: crf}
    evaluation: {cam_background: 0.3}
"""


@pytest.fixture
def with_auto(project: Project) -> Project:
    local = project.folder / "config.local.yaml"
    local.write_text(local.read_text() + RUNS)
    return project


def test_scores_are_chosen_where_they_are_auto_and_only_there(with_auto: Project) -> None:
    plan = with_auto.planned("results/tiny-auto/miou.csv")
    assert {"choose_thresholds": 1, "choose_walk_threshold": 1, "labels": 1}.items() <= plan.items()
    # Labels by a CRF take the CAMs' score, and are scored where their own maps say.
    other = with_auto.planned("results/tiny-auto-crf/miou.csv")
    assert other["choose_thresholds"] == 1 and "choose_walk_threshold" not in other
    assert not {"choose_thresholds", "choose_walk_threshold"} & set(
        with_auto.planned("results/tiny/miou.csv")
    )


@pytest.mark.slow
def test_pictures_to_tables(with_auto: Project) -> None:
    with_auto.make("results/tiny-auto/miou.csv")
    assert "Nothing to be done" in with_auto.make("results/tiny-auto/miou.csv")
    folder = with_auto.folder / "results" / "tiny-auto"
    scores = {
        "cam": read_chosen(folder / "thresholds.json", "cam")["score"],
        "pseudo_label": read_chosen(folder / "walk_thresholds.json", "walked")["score"],
    }
    lines = (folder / "miou.csv").read_text().splitlines()
    notes = [line for line in lines if line.startswith("# ")]
    assert [note.split(":")[0] for note in notes] == ["# cam", "# pseudo_label"]
    found = {
        row["stage"]: float(row["threshold"])
        for row in csv.DictReader(line for line in lines if line not in notes)
        if row["selection"] == "configured" and row["class"] == "mean"
    }
    assert found == scores
