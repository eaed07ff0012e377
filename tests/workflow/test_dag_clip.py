"""Real Snakemake with CLIP-ES, labels by a CRF, and segmentation on a transformer."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from clip_helpers import write_openai_file
from conftest import Project
from PIL import Image

from wsss.maps.map_store import MapStore

pytest.importorskip("transformers")

RUNS = """
  tiny-clip:
    extends: tiny
    cam: {method: clip-es, clip: {weights: tiny_clip}, prompts: {red: red square}}
    export: {scales: [1.0], mirror: false}
    pseudo_labels: {method: crf, confidence: 0.6, crf: {iterations: 2}}
    evaluation: {cam_background: {alpha: 2}}
  tiny-par:
    extends: tiny-clip
    pseudo_labels: {refine: par, par_iterations: 2}
  tiny-crf:
    extends: tiny
    cam: {method: cam}
    pseudo_labels: {method: crf, background: 0.3}
  tiny-tokens:
    extends: tiny-gt
    segmentation:
      backbone: {name: test_vit, weights: none, output_stride: null, layers: [0, -1], frozen: true}
      head: {name: linear}
  tiny-pyramid: {extends: tiny-tokens, segmentation: {head: {name: fpn, channels: 8}}}
"""


@pytest.fixture
def with_clip(project: Project) -> Project:
    write_openai_file(project.folder / "data" / "tiny_clip.pt")
    local = project.folder / "config.local.yaml"
    local.write_text(f"weights: {{tiny_clip: data/tiny_clip.pt}}\n{local.read_text()}{RUNS}")
    return project


def rows(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as handle:
        return list(csv.DictReader(handle))


def test_nothing_is_trained_for_maps_or_labels(with_clip: Project) -> None:
    plan = with_clip.planned("results/tiny-clip/miou.csv")
    assert not {"cam", "cam_alone", "labels", "irn"} & set(plan)
    assert {"export": 1, "pseudo_labels": 1, "segmentation": 1}.items() <= plan.items()
    other = with_clip.planned("results/tiny-crf/miou.csv")
    assert other["cam_alone"] == 1 and not {"labels", "irn"} & set(other)


@pytest.mark.slow
def test_pictures_to_tables(with_clip: Project) -> None:
    runs = ("tiny-clip", "tiny-par", "tiny-crf")
    with_clip.make(*(f"results/{run}/miou.csv" for run in runs))
    results = with_clip.folder / "results"
    for run in runs:
        table = rows(results / run / "miou.csv")
        means = {(row["stage"], row["selection"]): row for row in table if row["class"] == "mean"}
        assert {stage for stage, _ in means} >= {"cam", "pseudo_label", "segmentation"}
        assert all(0 <= float(row["iou"]) <= 1 for row in means.values())
    chosen = {
        row["stage"]: row
        for row in rows(results / "tiny-clip" / "miou.csv")
        if row["selection"] == "configured"
    }
    # (1 - v)^2 = v.
    assert float(chosen["cam"]["threshold"]) == pytest.approx(0.381966, abs=1e-5)
    assert float(chosen["pseudo_label"]["threshold"]) == 0.5
    with MapStore(results / "tiny-clip" / "cams.h5") as store:
        assert store.attributes["model"] == "tiny_clip.pt"
        assert len(str(store.attributes["model_sha256"])) == 64
        # Invented weights leave some pictures without any map, but not all.
        assert max(store.read(name).maps.max() for name in store.names) > 0.5
    labels = results / "tiny-clip" / "pseudo_labels"
    values = {int(v) for p in labels.glob("*.png") for v in np.unique(np.array(Image.open(p)))}
    assert 255 in values and values <= {0, 1, 2, 255}


@pytest.mark.slow
def test_a_frozen_transformer_to_tables(with_clip: Project) -> None:
    runs = ("tiny-tokens", "tiny-pyramid")
    with_clip.make(*(f"results/{run}/miou.csv" for run in runs))
    for run in runs:
        table = rows(with_clip.folder / "results" / run / "miou.csv")
        means = [float(row["iou"]) for row in table if row["class"] == "mean"]
        assert len(means) == 2 and all(0 <= mean <= 1 for mean in means)
