"""Real Snakemake with masks of another program as seeds: another run's CAMs name their classes."""

from __future__ import annotations

import csv
import json
import os

import numpy as np
import pytest
from conftest import Project
from PIL import Image
from pycocotools import mask as coco_mask

from wsss.maps.map_store import MapStore

ROOTS = "roots: {tiny: data/tiny, seeds: data/segments, labels: data/tiny/masks}"
RUNS = """
  tiny-masks:
    extends: tiny-cam
    stop_after: segmentation
    cam: {method: imported, kind: masks, cams_from: tiny-cam, background: 0.3}
    pseudo_labels: {method: crf, confidence: 0.6, crf: {iterations: 2}}
  tiny-labels:
    extends: tiny-masks
    cam: {kind: label-maps, seeds: labels}
"""


@pytest.fixture
def with_masks(project: Project) -> Project:
    """The tiny data set, and the boxes of its things as masks without classes."""
    local = project.folder / "config.local.yaml"
    local.write_text(local.read_text().replace("roots: {tiny: data/tiny}", ROOTS) + RUNS)
    folder = project.folder / "data" / "segments"
    folder.mkdir()
    for path in (project.folder / "data" / "tiny" / "masks").glob("*.png"):
        label = np.array(Image.open(path))
        found = []
        for value in np.unique(label[label > 0]):
            coded = coco_mask.encode(np.asfortranarray(label == value, dtype=np.uint8))
            found.append({"segmentation": {**coded, "counts": coded["counts"].decode()}})
        (folder / f"{path.stem}.json").write_text(json.dumps(found))
    return project


def test_only_the_run_that_names_the_classes_is_trained(with_masks: Project) -> None:
    target = "results/tiny-masks/miou.csv"
    plan = with_masks.planned(target)
    assert (plan["cam_alone"], plan["export"]) == (1, 2)
    assert not {"cam", "labels", "irn"} & set(plan)
    assert "cam_alone" not in with_masks.planned("results/tiny-labels/miou.csv")
    (with_masks.folder / "data" / "segments").rename(with_masks.folder / "data" / "elsewhere")
    refused = with_masks.snakemake("--dry-run", target)
    assert refused.returncode != 0
    assert "the maps or masks that run 'tiny-masks' imports are not there" in refused.stdout
    assert "roots: {seeds: /path}" in refused.stdout


@pytest.mark.slow
def test_masks_to_tables(with_masks: Project) -> None:
    runs = ("tiny-masks", "tiny-labels")
    targets = [f"results/{run}/miou.csv" for run in runs]
    with_masks.make(*targets)
    results = with_masks.folder / "results"
    scores = {}
    for run in runs:
        with open(results / run / "miou.csv", newline="") as handle:
            table = [row for row in csv.DictReader(handle) if row["class"] == "mean"]
        scores[run] = {row["stage"]: float(row["iou"]) for row in table}
        assert scores[run].keys() >= {"cam", "pseudo_label", "segmentation"}
    # True masks with their classes leave nothing but what a quarter of the size costs.
    assert scores["tiny-labels"]["cam"] > 0.9
    with MapStore(results / "tiny-masks" / "cams.h5") as store:
        assert store.attributes["kind"] == "masks" and len(str(store.attributes["cams"])) == 16
    assert with_masks.planned(*targets) == {}
    # An edit of the same size is other content; a touch is none.
    edited = next((with_masks.folder / "data" / "segments").iterdir())
    os.utime(edited, (0, 0))
    assert with_masks.planned(targets[0]) == {}
    edited.write_text(edited.read_text().replace(" ", "\n", 1))
    assert set(with_masks.planned(targets[0])) >= {"export", "pseudo_labels"}
    assert with_masks.planned(targets[1]) == {}
