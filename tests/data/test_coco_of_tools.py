"""COCO JSON in the forms that annotation tools write it: read right, or refused with the entry."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from layout_helpers import found, read
from PIL import Image

from wsss.data.coco_entries import plain_id
from wsss.data.formats.coco_json import CocoJsonSettings, list_coco_json
from wsss.data.images import read_label
from wsss.data.imports.masks import Choices, import_masks
from wsss.data.imports.registry import read_drawing
from wsss.errors import UserError

Document = dict[str, Any]
NAMES = ("my a.jpg", "my b.jpg")


def _object(number: int, image: int, category: int, left: int) -> Document:
    outline = [left, 1, left + 5, 1, left + 5, 9, left, 9]
    return {
        **{"id": number, "image_id": image, "category_id": category, "iscrowd": 0, "area": 40},
        **{"bbox": [left, 1, 5, 8], "segmentation": [outline]},
    }


DOCUMENT: Document = {
    "images": [
        {"id": number, "file_name": name, "width": 20, "height": 10}
        for number, name in enumerate(NAMES)
    ],
    "categories": [{"id": 0, "name": "cat"}, {"id": 4, "name": "dog"}],
    "annotations": [_object(1, 0, 0, 1), _object(2, 1, 4, 1), _object(3, 1, 0, 12)],
}
TAGS = {NAMES[0]: ("cat",), NAMES[1]: ("cat", "dog")}


def _each(key: str, field: str, change: Callable[[Any], Any]) -> Callable[[Document], None]:
    def apply(document: Document) -> None:
        for each in document[key]:
            each[field] = change(each[field])

    return apply


def _text_ids(document: Document) -> None:
    _each("annotations", "image_id", str)(document)
    _each("annotations", "category_id", str)(document)


def _names_as_ids(document: Document) -> None:
    for key, field in (
        *(("images", "id"), ("annotations", "image_id"), ("annotations", "id")),
        *(("categories", "id"), ("annotations", "category_id")),
    ):
        _each(key, field, lambda value: f"3fa8-{value}")(document)


def _roboflow(document: Document) -> None:
    for each in document["categories"]:
        each["supercategory"] = "animals"
        each["id"] += 1
    document["categories"].insert(0, {"id": 0, "name": "animals", "supercategory": "none"})
    _each("annotations", "category_id", lambda value: value + 1)(document)


def _labelme(document: Document) -> None:
    document["categories"].insert(0, {"id": -1, "name": "_background_", "supercategory": None})


WRITTEN = {
    "cvat": _each("images", "file_name", "train/{}".format),
    "via": lambda d: (_text_ids(d), _each("annotations", "segmentation", lambda s: s[0])(d)),
    "names as ids": _names_as_ids,
    "roboflow": _roboflow,
    "labelme": _labelme,
    "windows": _each("images", "file_name", "C:\\data\\{}".format),
    "address": _each("images", "file_name", lambda name: name.replace(" ", "%20")),
    "local files": _each("images", "file_name", lambda n: f"/data/local-files/?d=x%5C{n}"),
    "uploaded": _each("images", "file_name", "images/0f3a5b7c-{}".format),
    "uploaded address": _each(
        "images", "file_name", lambda n: f"images/0f3a5b7c-{n.replace(' ', '%20')}"
    ),
    "numbers of tables": _each("annotations", "category_id", float),
}


def _write(folder: Path, change: Callable[[Document], Any]) -> Path:
    for name in NAMES:
        Image.new("RGB", (20, 10), "grey").save(folder / name)
    document = copy.deepcopy(DOCUMENT)
    change(document)
    (folder / "annotations.json").write_text(json.dumps(document))
    return folder / "annotations.json"


@pytest.mark.parametrize("tool", WRITTEN)
def test_each_tools_form_is_read(tmp_path: Path, tool: str) -> None:
    file = _write(tmp_path, WRITTEN[tool])
    _, index = read(tmp_path)
    assert found(index) == TAGS
    assert index.classes == ("cat", "dog")
    import_masks(read_drawing(file, index.classes), index, tmp_path, Choices())
    expected = np.zeros((10, 20), np.uint8)
    expected[1:9, 1:6], expected[1:9, 12:17] = 2, 1
    assert np.array_equal(read_label(tmp_path / "masks" / "my b.png"), expected)


def test_categories_of_nothing_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _write(tmp_path, _roboflow)
    read(tmp_path)
    note = "left out, categories without an object that are the background or a group of others"
    assert f"{note}: animals\n" in capsys.readouterr().out


def test_a_group_with_objects_is_a_class(tmp_path: Path) -> None:
    def change(document: Document) -> None:
        _roboflow(document)
        document["annotations"][0]["category_id"] = 0

    _write(tmp_path, change)
    assert read(tmp_path)[1].classes == ("animals", "cat", "dog")


def test_a_class_that_nothing_has_yet_stays(tmp_path: Path) -> None:
    _write(tmp_path, lambda d: d["categories"].append({"id": 9, "name": "owl"}))
    assert read(tmp_path)[1].classes == ("cat", "dog", "owl")


def test_each_set_has_its_own_pictures_of_a_name(tmp_path: Path) -> None:
    for name, category in (("train", 0), ("valid", 4)):
        (tmp_path / name).mkdir()
        Image.new("RGB", (20, 10), "grey").save(tmp_path / name / "1.jpg")
        document = {
            **DOCUMENT,
            "images": [{"id": 1, "file_name": "1.jpg"}],
            "annotations": [_object(1, 1, category, 1)],
        }
        (tmp_path / name / "_annotations.coco.json").write_text(json.dumps(document))
    assert found(read(tmp_path)[1]) == {"train/1.jpg": ("cat",), "valid/1.jpg": ("dog",)}


def test_no_outline_is_a_box(tmp_path: Path) -> None:
    def change(document: Document) -> None:
        document["annotations"][0]["segmentation"] = [[]]
        document["annotations"][1]["segmentation"] = [[], [4, 4, 5, 5], [1, 1, 6, 1, 6, 9]]

    file = _write(tmp_path, change)
    drawing = read_drawing(file, ("cat", "dog"))
    assert [each.picture for each in drawing.masks] == [NAMES[1]]
    assert drawing.notes == [f"left out, boxes without an outline: in {NAMES[0]}"]
    assert (drawing.masks[0].read()[:, :8] == 2).any()


@pytest.mark.parametrize(
    ("key", "field", "value", "said"),
    [
        ("images", "file_name", None, "entry 1 of its images has file_name None"),
        ("images", "file_name", "", "entry 1 of its images has file_name ''"),
        ("images", "file_name", ["a"], r"entry 1 of its images has file_name \['a'\]"),
        ("images", "id", None, "entry 1 of its images has id None"),
        ("annotations", "image_id", ..., "entry 1 of its annotations has no image_id"),
        ("annotations", "category_id", float("nan"), "annotations has category_id nan"),
        ("annotations", "category_id", 1.5, "entry 1 of its annotations has category_id 1.5"),
        ("categories", "id", True, "entry 1 of its categories has id True"),
        ("categories", "name", None, "entry 1 of its categories has name None"),
    ],
)
def test_what_an_entry_lacks_is_said(
    tmp_path: Path, key: str, field: str, value: Any, said: str
) -> None:
    def change(document: Document) -> None:
        if value is ...:
            del document[key][0][field]
        else:
            document[key][0][field] = value

    file = _write(tmp_path, change)
    Image.new("RGB", (20, 10)).save(tmp_path / "None.jpg")
    with pytest.raises(UserError, match=said):
        list_coco_json(CocoJsonSettings(), tmp_path)
    with pytest.raises(UserError, match=said):
        read_drawing(file, ("cat", "dog"))


@pytest.mark.parametrize("width", [20.5, None, float("nan"), "wide"])
def test_a_size_that_is_none_is_said(tmp_path: Path, width: Any) -> None:
    file = _write(tmp_path, lambda d: d["images"][1].update(width=width))
    with pytest.raises(UserError, match=f"its height is 10, its width {width!r}") as caught:
        read_drawing(file, ("cat", "dog"))
    assert str(caught.value.where).endswith(f"annotations.json, {NAMES[1]}")


def test_ids_in_one_form() -> None:
    assert [plain_id(value) for value in (7, 7.0, "7", "07", "-7", "a", "")] == [
        *(7, 7, 7, "07", "-7", "a", "")
    ]
