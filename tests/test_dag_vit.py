"""Real Snakemake with transformers: tables of both methods, another run's model as an input."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import Project

RUNS = """
  tiny-mct:
    extends: tiny
    stop_after: cam
    cam:
      method: mct
      vit: {name: deit_tiny_patch16_224, depth: 2, class_attention_layers: 2, warmup_epochs: 0,
            learning_rate_at_512: 0.1}
    export: {refine: patch-attention}
  tiny-vit: {extends: tiny-mct, cam: {method: acr-vit}}
  tiny-refined:
    extends: tiny-cam
    export: {refine: patch-attention, refine_from: tiny-vit}
"""


@pytest.fixture
def transformers(project: Project) -> Project:
    local = project.folder / "config.local.yaml"
    local.write_text(local.read_text() + RUNS)
    return project


def test_the_lending_runs_model_is_trained_first(transformers: Project) -> None:
    plan = transformers.planned("results/tiny-refined/cams.h5")
    assert plan["train_cam"] == 2
    assert plan["export_cams"] == 1
    assert transformers.planned("results/tiny-cam/cams.h5")["train_cam"] == 1


@pytest.mark.slow
def test_tables_of_both_methods(transformers: Project) -> None:
    runs = ("tiny-mct", "tiny-vit", "tiny-refined")
    transformers.make(*(f"results/{run}/miou.csv" for run in runs))
    for run in runs:
        table = Path(transformers.folder / "results" / run / "miou.csv").read_text()
        assert f"{run},cam," in table
