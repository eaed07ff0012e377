"""Real Snakemake: a frozen classifier of another run, phases, clusters of features."""

from __future__ import annotations

import pytest
from conftest import TINY_RUN, Project

RUNS = """
  tiny-occse:
    extends: tiny
    stop_after: cam
    cam: {method: oc-cse, epochs: 2, occse: {anchor_from: tiny-cam}}
  tiny-lpcam:
    extends: tiny-cam
    export: {refine: lpcam}
    lpcam: {clusters: 3, object_probability: 0.5}
  tiny-acr2:
    extends: tiny
    stop_after: cam
    cam: {epochs: 3, acr: {anchor: 0.5, balance: 2.0, schedule:
      {classifier_epochs: 1, reconstructor_epochs: 1}}}
"""


def test_a_frozen_classifier_is_trained_first(project: Project) -> None:
    (project.folder / "config.local.yaml").write_text(TINY_RUN + RUNS)
    table = "results/tiny-occse/miou.csv"
    # That of tiny-cam, and the run's own.
    assert project.planned(table)["cam_alone"] == 2
    project.make(table, "results/tiny-acr2/miou.csv")
    assert "tiny-occse,cam,pseudo,train" in (project.folder / table).read_text()
    assert project.planned(table) == {}


def test_clusters_are_made_before_the_export(project: Project) -> None:
    (project.folder / "config.local.yaml").write_text(TINY_RUN + RUNS)
    table = "results/tiny-lpcam/miou.csv"
    assert project.planned(table)["lpcam"] == 1
    assert "lpcam" not in project.planned("results/tiny-cam/miou.csv")
    project.make(table, by_itself="lpcam")
    assert "tiny-lpcam,cam,pseudo,train" in (project.folder / table).read_text()
    assert project.planned(table) == {}
    # A bound on clusters makes them anew and what follows, not the classifier.
    changed = (TINY_RUN + RUNS).replace("clusters: 3", "clusters: 2")
    (project.folder / "config.local.yaml").write_text(changed)
    again = project.planned(table)
    assert {"lpcam", "export"} <= set(again) and "cam_alone" not in again


SECOND = """
  tiny-second:
    extends: tiny
    segmentation: {labels: predicted}
    self_labels: {model_from: tiny-gt, scales: [1.0], mirror: false, confidence: 0.4}
    prediction: {crf: false}
"""


def test_a_second_round_has_no_cams(project: Project) -> None:
    (project.folder / "config.local.yaml").write_text(TINY_RUN + SECOND)
    plan = project.planned("results/tiny-second/done", "--config", "shards={self_labels: 2}")
    # Two parts, which are put together once it is known how many they are.
    assert (plan["self_labels"], plan["segmentation"], plan["score_labels_self_label"]) == (1, 2, 1)
    cams = {"cam", "cam_alone", "export", "labels", "irn", "pseudo_labels", "score_maps_cam"}
    assert not cams & set(plan) and {"prediction_sample", "score_tags", "report"} <= set(plan)
    # As far as the labels, nothing learns from them.
    short = SECOND + "    stop_after: pseudo_label\n"
    (project.folder / "config.local.yaml").write_text(TINY_RUN + short)
    plan = project.planned("results/tiny-second/done")
    assert (plan["self_labels"], plan["segmentation"], plan["score_labels_self_label"]) == (1, 1, 1)
    assert not {"prediction", "prediction_sample", "score_tags"} & set(plan)


@pytest.mark.slow
def test_a_second_round_learns_from_what_the_first_predicts(project: Project) -> None:
    (project.folder / "config.local.yaml").write_text(TINY_RUN + SECOND)
    table = "results/tiny-second/miou.csv"
    project.make(table, by_itself="self-labels")
    text = (project.folder / table).read_text()
    rows = [line.split(",")[:4] for line in text.splitlines() if ",mean," in line]
    assert rows == [
        ["tiny-second", "self_label", "tiny-gt", "train"],
        ["tiny-second", "segmentation", "tiny-gt", "val"],
    ]
    folder = project.folder / "results" / "tiny-second"
    assert len(list((folder / "self_labels").glob("*.png"))) == 8
    assert not (folder / "pseudo_labels").exists() and not (folder / "cams.h5").exists()
    assert project.planned(table) == {}
    # What the first round learns by changes the second.
    local = project.folder / "config.local.yaml"
    local.write_text(local.read_text().replace("head: {channels: 8", "head: {channels: 4"))
    plan = project.planned(table)
    assert (plan["segmentation"], plan["self_labels"]) == (2, 1)


LENT = """
  tiny-lent: {extends: tiny, stop_after: cam, export: {model_from: tiny-cam}}
  tiny-clustered:
    extends: tiny-lent
    export: {refine: lpcam}
    lpcam: {clusters: 3, object_probability: 0.5}
"""


def test_exports_of_several_runs_share_a_training(project: Project) -> None:
    (project.folder / "config.local.yaml").write_text(TINY_RUN + LENT)
    tables = [f"results/{run}/miou.csv" for run in ("tiny-lent", "tiny-clustered")]
    plan = project.planned(*tables)
    assert (plan["cam_alone"], plan["lpcam"], plan["export"]) == (1, 1, 2)
    assert "cam" not in plan
    # Figures of the reconstructor are those of a run that trains one.
    assert "reconstructions" not in project.planned("results/tiny-lent/figures.sha256")


@pytest.mark.slow
def test_whose_classifier_it_is_changes_no_byte(project: Project) -> None:
    (project.folder / "config.local.yaml").write_text(TINY_RUN + LENT)
    cams = [f"results/{run}/cams.h5" for run in ("tiny-lent", "tiny-cam", "tiny-clustered")]
    project.make(*cams)
    same, own, clustered = ((project.folder / path).read_bytes() for path in cams)
    assert same == own != clustered
    assert not (project.folder / "results/tiny-lent/cam").exists()
