"""COCO JSON whose annotations are of categories that it does not list."""

from __future__ import annotations

import json
from pathlib import Path

from PIL import Image

from wsss.data.formats.coco_json import CocoJsonSettings, list_coco_json


def test_an_annotation_of_no_category_is_said(tmp_path: Path) -> None:
    Image.new("RGB", (8, 6)).save(tmp_path / "a.png")
    document = {
        "images": [{"id": 1, "file_name": "a.png", "width": 8, "height": 6}],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "background"}],
        "annotations": [
            {"id": 5, "image_id": 1, "category_id": 1, "bbox": [1, 1, 3, 3]},
            {"id": 6, "image_id": 1, "category_id": 9, "bbox": [1, 1, 3, 3]},
        ],
    }
    (tmp_path / "annotations.json").write_text(json.dumps(document))
    listing = list_coco_json(CocoJsonSettings(), tmp_path)
    assert listing.classes == ("cat",)
    assert [(each.file, each.kind, each.reason) for each in listing.problems] == [
        ("annotations.json", "unknown category", "annotation 6: no such category")
    ]
