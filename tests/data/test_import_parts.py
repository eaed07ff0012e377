"""Masks that come in parts: a list for each set in one zip, and regions that are no masks."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wsss.data.imports.registry import read_drawing
from wsss.errors import UserError


def _coco(picture: str, **changes: Any) -> str:
    outline = [[1, 1, 6, 1, 6, 9, 1, 9]]
    return json.dumps(
        {
            "images": [{"id": 1, "file_name": picture, "width": 20, "height": 10}],
            "categories": [{"id": 1, "name": "cat"}],
            "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "segmentation": outline}],
            **changes,
        }
    )


def _zipped(path: Path, **documents: str) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in documents.items():
            archive.writestr(f"annotations/instances_{name}.json", text)
    return path


def test_each_set_of_a_project_has_a_list(tmp_path: Path) -> None:
    source = _zipped(tmp_path / "a.zip", Train=_coco("a.jpg"), Validation=_coco("b.jpg"))
    drawing = read_drawing(source, ("cat",))
    assert [mask.picture for mask in drawing.masks] == ["a.jpg", "b.jpg"]
    assert all((mask.read()[1:9, 1:6] == 1).all() for mask in drawing.masks)


def test_a_part_that_is_none_is_named(tmp_path: Path) -> None:
    source = _zipped(tmp_path / "a.zip", Train=_coco("a.jpg"), other="[1]")
    with pytest.raises(UserError, match="neither COCO's nor Label Studio's") as caught:
        read_drawing(source, ("cat",))
    assert str(caught.value.where).endswith("instances_other.json")


def test_two_tools_in_one_zip_are_refused(tmp_path: Path) -> None:
    tasks = json.dumps([{"data": {"image": "a.jpg"}, "annotations": []}])
    source = _zipped(tmp_path / "a.zip", Train=_coco("a.jpg"), tasks=tasks)
    with pytest.raises(UserError, match="this zip has COCO JSON and Label Studio's JSON"):
        read_drawing(source, ("cat",))


def _region(kind: str, labels: list[str], **value: Any) -> dict[str, Any]:
    sides = {"original_width": 20, "original_height": 10}
    return {"type": kind, "value": {kind: labels, **value}, **sides}


def _tasks(path: Path, *regions: dict[str, Any]) -> Path:
    annotation = {"id": 1, "result": list(regions)}
    path.write_text(json.dumps([{"data": {"image": "a.jpg"}, "annotations": [annotation]}]))
    return path


OUTLINE = [[0, 0], [50, 0], [50, 100], [0, 100]]


def test_boxes_beside_outlines_are_said_to_be_left_out(tmp_path: Path) -> None:
    outline = _region("polygonlabels", ["cat"], points=OUTLINE)
    box = _region("rectanglelabels", ["cat"], x=0, y=0, width=9, height=9)
    drawing = read_drawing(_tasks(tmp_path / "a.json", outline, box), ("cat",))
    assert drawing.notes == ["left out, boxes, ellipses and points: in a.jpg"]
    assert np.unique(drawing.masks[0].read()).tolist() == [0, 1]
    assert not read_drawing(_tasks(tmp_path / "a.json", outline), ("cat",)).notes


@pytest.mark.parametrize("labels", [[], ["cat", "dog"]])
def test_a_region_has_one_label(tmp_path: Path, labels: list[str]) -> None:
    source = _tasks(tmp_path / "a.json", _region("polygonlabels", labels, points=OUTLINE))
    with pytest.raises(UserError, match=r"its labels are \[.*\], expected one"):
        read_drawing(source, ("cat", "dog")).masks[0].read()
