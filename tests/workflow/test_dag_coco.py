"""MS-COCO's format through the same rules as every data set: a tiny one, made here."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Project
from PIL import Image

from wsss.data.images import read_label

MIOU = "results/tiny-coco/miou.csv"
CATEGORIES = [{"id": 18, "name": "dog"}, {"id": 3, "name": "car"}]
RUN = """
  tiny-coco:
    extends: tiny
    root: coco
    index: {format: coco}
"""


def write_tiny_coco(root: Path) -> None:
    """Write six training and three validation pictures; one of each set has no object."""
    rng = np.random.default_rng(0)
    key = 0
    for folder, count in (("train2014", 6), ("val2014", 3)):
        (root / folder).mkdir(parents=True)
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        for number in range(count):
            key += 1
            name = f"COCO_{folder}_{key:012d}.jpg"
            picture = rng.integers(60, 120, (56, 64, 3), dtype=np.uint8)
            if number:
                top, left = (int(value) for value in rng.integers(4, 30, 2))
                category = (3, 18)[number % 2]
                picture[top : top + 20, left : left + 20] = (220, 40, 30)
                outline = [left, top, left + 20, top, left + 20, top + 20, left, top + 20]
                annotations.append(
                    {
                        "id": 100 + key,
                        "image_id": key,
                        "category_id": category,
                        "segmentation": [outline],
                        "iscrowd": 0,
                    }
                )
            Image.fromarray(picture).save(root / folder / name)
            images.append({"id": key, "file_name": name, "width": 64, "height": 56})
        content = {"images": images, "annotations": annotations, "categories": CATEGORIES}
        (root / "annotations").mkdir(exist_ok=True)
        (root / "annotations" / f"instances_{folder}.json").write_text(json.dumps(content))


@pytest.fixture
def coco(project: Project) -> Project:
    local = project.folder / "config.local.yaml"
    local.write_text(local.read_text().replace("{tiny: data/tiny}", "{coco: data/mine}") + RUN)
    local.write_text(local.read_text().replace("root: tiny\n", "root: demo\n"))
    write_tiny_coco(project.folder / "data" / "mine")
    return project


def test_masks_are_drawn_on_the_way_and_only_for_coco(coco: Project) -> None:
    plan = coco.planned(MIOU)
    assert (plan["coco_masks"], plan["masks"], plan["index"]) == (1, 1, 1)
    assert "coco_masks" not in coco.planned("results/demo/miou.csv")
    # Training never looks at a mask.
    assert "coco_masks" not in coco.planned("results/tiny-coco/segmentation/model.safetensors")


@pytest.mark.slow
def test_a_coco_set_reaches_the_table(coco: Project) -> None:
    coco.make(MIOU, by_itself="coco-masks")
    results = coco.folder / "results" / "tiny-coco"
    assert (results / "classes.txt").read_text().split() == ["car", "dog"]
    with (results / "index.csv").open() as handle:
        tags = {row["name"][-2:]: row["tags"] for row in csv.DictReader(handle)}
    assert tags["01"] == tags["07"] == ""
    assert set(tags.values()) == {"", "car", "dog"}
    # Without an object: not in CAM training, but all background in evaluation.
    trained = {path.stem[-2:] for path in (results / "pseudo_labels").glob("*.png")}
    assert trained == {"02", "03", "04", "05", "06"}
    assert (results / "predictions" / "COCO_val2014_000000000007.png").is_file()
    masks = coco.folder / "data" / "mine" / "masks"
    assert not read_label(masks / "val2014" / "COCO_val2014_000000000007.png").any()
    label = read_label(masks / "train2014" / "COCO_train2014_000000000002.png")
    assert (np.bincount(label.ravel(), minlength=3) == (64 * 56 - 400, 0, 400)).all()
    record = json.loads((results / "coco_masks.json").read_text())
    assert [each["original_id"] for each in record["classes"]] == [3, 18]
    with (results / "miou.csv").open() as handle:
        rows = list(csv.DictReader(handle))
    assert {row["stage"] for row in rows} == {
        *("cam", "pseudo_label", "segmentation", "segmentation_crf")
    }
    assert {row["class"] for row in rows} == {"background", "car", "dog", "mean"}
    assert "Nothing to be done" in coco.make(MIOU)
    # Another run on the same data finds the masks drawn.
    before = (masks / "categories.json").stat().st_mtime_ns
    (results / "coco_masks.json").unlink()
    assert "already drawn" in coco.make("results/tiny-coco/coco_masks.json")
    assert (masks / "categories.json").stat().st_mtime_ns == before
