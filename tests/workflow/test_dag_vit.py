"""Real Snakemake with transformers: demo pictures to mIoU tables, ablation, figures, refinement."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from conftest import Project
from PIL import Image

from wsss.cam.model_file import CLASSIFIER
from wsss.data.formats import demo_pictures as demo
from wsss.maps.map_store import MapStore

# A few of the demo's pictures and the cheapest settings with which every stage still does its work.
RUNS = """
  few-vit:
    extends: tiny
    root: few
    cam:
      method: acr-vit
      vit: {name: deit_tiny_patch16_224, depth: 2, class_attention_layers: 2, warmup_epochs: 0,
            learning_rate_at_512: 0.1}
    export: {refine: patch-attention}
    prediction: {crf: false}
    ablations: {variants: {cam: null, no-srf: null, constant-q: null, mct: few-mct}}
  few-mct: {extends: few-vit, cam: {method: mct}}
  few-refined:
    extends: few-vit
    stop_after: cam
    cam: {method: cam}
    export: {refine_from: few-vit}
"""
BOTH = ("few-mct", "few-vit")
AFTER_TRAINING = (
    *("export", "score_maps_cam", "labels", "irn", "pseudo_labels"),
    *("score_maps_pseudo_label", "segmentation", "prediction", "prediction_sample"),
    *("score_labels_segmentation", "panels", "collect"),
)


@pytest.fixture
def transformers(project: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.setattr(demo, "TRAIN_IMAGES", 12)
    monkeypatch.setattr(demo, "VAL_IMAGES", 4)
    demo.generate_demo(output=project.folder / "data" / "few")
    local = project.folder / "config.local.yaml"
    roots = "roots: {tiny: data/tiny"
    text = local.read_text()
    assert text.count(roots) == 1
    local.write_text(text.replace(roots, f"{roots}, few: data/few") + RUNS)
    return project


def rows(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as handle:
        return list(csv.DictReader(handle))


def test_the_lending_runs_model_is_trained_first(transformers: Project) -> None:
    plan = transformers.planned("results/few-refined/cams.h5")
    # The transformer against its reconstructor, and the plain classifier; one store.
    assert (plan["cam"], plan["cam_alone"], plan["export"]) == (1, 1, 1)


def test_the_same_rules_serve_both_methods(transformers: Project) -> None:
    both = transformers.planned(*(f"results/{run}/miou.csv" for run in BOTH))
    # As two runs of other methods: one index, and a reconstructor kept where there is one.
    shared = dict.fromkeys(("index", "masks", "cam", "cam_alone"), 1)
    settings = {"stage_config": 2 * 9 - 1, "count_shards": 2 * 4}
    assert both == dict.fromkeys(AFTER_TRAINING, 2) | shared | settings


@pytest.mark.slow
def test_demo_pictures_to_tables_and_figures(transformers: Project) -> None:
    results = transformers.folder / "results"
    versus = "figures/versus-few-mct"
    transformers.make(
        *(f"results/{run}/miou.csv" for run in BOTH),
        *(f"results/few-vit/{name}" for name in ("ablation.csv", f"{versus}.sha256")),
        "results/few-refined/cams.h5",
    )

    for run in BOTH:
        table = rows(results / run / "miou.csv")
        assert {row["run"] for row in table} == {run}
        assert {row["stage"] for row in table} == {"cam", "pseudo_label", "segmentation"}
        means = [float(row["iou"]) for row in table if row["class"] == "mean"]
        assert len(means) == 5 and all(0 < mean < 1 for mean in means)
    with MapStore(results / "few-refined" / "cams.h5") as store:
        lender = CLASSIFIER.load(results / "few-vit" / "cam" / "model.safetensors")
        assert store.attributes["attention_model"] == lender.identity

    ablation = rows(results / "few-vit" / "ablation.csv")
    assert [(row["variant"], row["run"]) for row in ablation] == [
        ("full", "few-vit"),
        ("full", "few-vit"),
        ("mct", "few-mct"),
        ("mct", "few-mct"),
    ]
    for row in ablation:
        scored = [
            entry["iou"]
            for entry in rows(results / row["run"] / "miou.csv")
            if (entry["stage"], entry["class"]) == ("cam", "mean")
            and entry["selection"] == row["selection"]
        ]
        assert scored == [row["miou"]]

    for kind, split in (("cam", "train"), ("segmentation", "val")):
        folder = results / "few-vit" / versus / kind
        pictures = sorted(folder.glob("demo_*.png"))
        assert len(pictures) == 2 and (folder / "index.png").is_file()
        numbers = [int(path.stem.removeprefix("demo_")) for path in pictures]
        assert all((number < 12) == (split == "train") for number in numbers)
        with Image.open(pictures[0]) as picture:
            assert picture.width > 3 * picture.height  # four columns
