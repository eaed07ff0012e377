"""Real Snakemake: runs that take a frozen classifier from one another."""

from __future__ import annotations

from conftest import TINY_RUN, Project

RUNS = """
  tiny-occse:
    extends: tiny
    stop_after: cam
    cam: {method: oc-cse, epochs: 2, occse: {anchor_from: tiny-cam}}
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
