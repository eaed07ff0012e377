"""Real Snakemake: a frozen classifier of another run, phases, clusters of features."""

from __future__ import annotations

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
    project.make(table)
    assert "tiny-lpcam,cam,pseudo,train" in (project.folder / table).read_text()
    assert project.planned(table) == {}
    # A bound on clusters makes them anew and what follows, not the classifier.
    changed = (TINY_RUN + RUNS).replace("clusters: 3", "clusters: 2")
    (project.folder / "config.local.yaml").write_text(changed)
    again = project.planned(table)
    assert {"lpcam", "export"} <= set(again) and "cam_alone" not in again
