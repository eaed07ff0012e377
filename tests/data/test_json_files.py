"""JSON of other programs: what is damaged or in doubt is refused with a message, never guessed."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from wsss.data.build import build_index
from wsss.data.formats.coco import draw_labels
from wsss.data.formats.coco_json import CocoJsonSettings, list_coco_json
from wsss.data.formats.table import TableSettings
from wsss.data.imports.masks import Choices, import_masks
from wsss.data.imports.registry import read_drawing
from wsss.data.index import ImageRecord, Index
from wsss.data.json_files import parse_json, read_data_json, whole_number
from wsss.data.run_lengths import run_lengths
from wsss.errors import UserError

INF = float("inf")
DEEP = "[" * 100_000 + "]" * 100_000
COCO: dict[str, Any] = {
    "images": [
        {"id": 1, "file_name": "a.png", "width": 9, "height": 6},
        {"id": 2, "file_name": "b.png", "width": 9, "height": 6},
    ],
    "annotations": [
        {"id": 1, "image_id": 1, "category_id": 1, "segmentation": [[1, 1, 7, 1, 7, 5]]},
        {"id": 2, "image_id": 2, "category_id": 2, "segmentation": [[1, 1, 7, 1, 7, 5]]},
    ],
    "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
}
REGION = {
    "type": "polygonlabels",
    "original_width": 9,
    "original_height": 6,
    "value": {"points": [[10, 10], [90, 10], [90, 90]], "polygonlabels": ["cat"]},
}
TASKS: list[Any] = [
    {"data": {"image": "a.png"}, "annotations": [{"id": 1, "result": [copy.deepcopy(REGION)]}]}
]
TASK_REGION = (0, "annotations", 0, "result", 0)


def changed(document: Any, path: tuple[Any, ...], value: Any) -> Any:
    document = copy.deepcopy(document)
    place = document
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return document


def with_more(key: str, entry: dict[str, Any]) -> dict[str, Any]:
    return {**COCO, key: [*COCO[key], entry]}


def written(root: Path, name: str, content: Any) -> Path:
    for picture in ("a.png", "b.png"):
        Image.new("RGB", (9, 6)).save(root / picture)
    if not isinstance(content, bytes):
        content = (content if isinstance(content, str) else json.dumps(content)).encode()
    (root / name).write_bytes(content)
    return root / name


def taken(source: Path) -> list[str]:
    records = [ImageRecord(n, ("train",), ("cat", "dog"), 9, 6, f"{n}.png") for n in "ab"]
    drawing = read_drawing(source, ("cat", "dog"))
    return import_masks(drawing, Index(("cat", "dog"), records), source.parent, Choices()).written


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "not JSON: Expecting value"),
        (b'{"a": 1, "b": 2, "a": 3}', "not JSON: the key 'a' stands twice"),
        (DEEP.encode(), "nested too deeply"),
        (b"9" * 5000, r"not JSON: Exceeds the limit \(4300 digits\)[^;]*$"),
        (b'"\xff"', "not JSON: 'utf-8' codec"),
    ],
)
def test_what_is_no_json(tmp_path: Path, content: bytes, words: str) -> None:
    with pytest.raises(UserError, match=words.removesuffix("$")) as refused:
        parse_json(content, "here")
    assert "set_int_max" not in str(refused.value) and refused.value.where == "here"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_byte_order_marks_are_no_matter(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "a.json").write_bytes('{"é": [1]}'.encode(encoding))
    assert read_data_json(tmp_path / "a.json") == {"é": [1]}


def test_what_can_be_no_file_of_json(tmp_path: Path) -> None:
    for name, words in {
        ".": "a folder",
        "x" * 300: "too long",
        "a\0": "null byte",
        "b": "not exist",
    }.items():
        with pytest.raises(UserError, match=words):
            read_data_json(tmp_path / name)


def test_whole_numbers() -> None:
    assert [whole_number(value) for value in (3, 3.0, "3", 10**400)] == [3, 3, 3, 10**400]
    wrong: tuple[Any, ...] = (INF, -INF, float("nan"), 1.5, "x", "")
    for value in wrong:
        with pytest.raises(ValueError):
            whole_number(value)


DOUBTFUL = {
    "an infinite id": changed(COCO, ("categories", 0, "id"), INF),
    "half an id": changed(COCO, ("images", 0, "id"), 1.5),
    "an annotation of an infinite image": changed(COCO, ("annotations", 0, "image_id"), INF),
    "two categories of one id": with_more("categories", {"id": 1, "name": "cow"}),
    "two images of one id": changed(COCO, ("images", 1, "id"), 1),
    "a list twice": json.dumps(COCO)[:-1] + ', "annotations": []}',
}


@pytest.mark.parametrize("name", DOUBTFUL)
def test_coco_ids_that_leave_open_what_is_meant(tmp_path: Path, name: str) -> None:
    source = written(tmp_path, "annotations.json", DOUBTFUL[name])
    with pytest.raises(UserError):
        build_index(CocoJsonSettings(), tmp_path)
    with pytest.raises(UserError):
        taken(source)
    assert not (tmp_path / "masks").exists()


def test_the_same_without_doubt(tmp_path: Path) -> None:
    source = written(tmp_path, "annotations.json", COCO)
    index = build_index(CocoJsonSettings(), tmp_path)
    assert [record.tags for record in index.records] == [("cat",), ("dog",)]
    assert taken(source) == ["a", "b"]


def test_a_file_from_which_images_were_taken(tmp_path: Path) -> None:
    rest = changed(COCO, ("annotations", 0, "image_id"), 7)
    source = written(tmp_path, "annotations.json", rest)
    index = build_index(CocoJsonSettings(), tmp_path)
    assert [record.tags for record in index.records if record.tags] == [("dog",)]
    notes = list_coco_json(CocoJsonSettings(), tmp_path).notes
    assert any("annotations of images that annotations.json does not list: 7" in n for n in notes)
    drawing = read_drawing(source, ("cat", "dog"))
    assert any("images that are not listed: 7" in note for note in drawing.notes)
    assert taken(source) == ["b"]


def test_annotations_of_other_images_alone(tmp_path: Path) -> None:
    # As where ids are text in one list and numbers in the other.
    others = changed(COCO, ("annotations", 0, "image_id"), 7)
    others = changed(others, ("annotations", 1, "image_id"), 8)
    source = written(tmp_path, "annotations.json", others)
    with pytest.raises(UserError, match="all objects are of images that are not listed: 7, 8"):
        build_index(CocoJsonSettings(), tmp_path)
    with pytest.raises(UserError, match="all objects are of images that are not listed: 7, 8"):
        read_drawing(source, ("cat", "dog"))


def test_pictures_of_a_table_may_be_named_by_numbers(tmp_path: Path) -> None:
    for name in ("2007000032", "2007000039"):
        Image.new("RGB", (9, 6)).save(tmp_path / f"{name}.png")
    rows = [{"image": 2007000032, "tags": "cat"}, {"image": "2007000039", "tags": "dog"}]
    written(tmp_path, "t.json", rows)
    index = build_index(TableSettings(file="t.json"), tmp_path)
    assert {record.name: record.tags for record in index.records if record.tags} == {
        "2007000032": ("cat",),
        "2007000039": ("dog",),
    }


def test_a_key_twice_with_one_value_is_no_matter() -> None:
    assert parse_json('{"a": [1], "b": 2, "a": [1]}', "here") == {"a": [1], "b": 2}


def test_messages_name_the_ids(tmp_path: Path) -> None:
    source = written(tmp_path, "annotations.json", DOUBTFUL["two categories of one id"])
    with pytest.raises(UserError, match="the id 1 is that of 'cat' and of 'cow'"):
        build_index(CocoJsonSettings(), tmp_path)
    with pytest.raises(UserError, match="two entries have the id 1: cat and cow"):
        taken(source)


WRONG_COCO = [
    (("images", 0, "width"), INF),
    (("images", 0, "width"), 10**9),
    (("annotations", 0, "category_id"), [1]),
    (("annotations", 0, "category_id"), INF),
    (("annotations", 0, "iscrowd"), "0"),
]
SIDES: tuple[Any, ...] = (None, -1, INF, "x", [], 10**400)
POINTS: tuple[Any, ...] = (INF, float("nan"), 1e30, 10**400, "x")
WRONG_TASKS = [
    *(((*TASK_REGION, "original_width"), value) for value in SIDES),
    *(((*TASK_REGION, "value", "points", 0, 0), value) for value in POINTS),
    ((0, "annotations", 0, "id"), INF),
    (TASK_REGION, {key: value for key, value in REGION.items() if key != "value"}),
]


@pytest.mark.parametrize(
    ("document", "path", "value"),
    [*((COCO, *each) for each in WRONG_COCO), *((TASKS, *each) for each in WRONG_TASKS)],
)
def test_entries_of_drawings_that_are_none(
    tmp_path: Path, document: Any, path: tuple[Any, ...], value: Any
) -> None:
    with pytest.raises(UserError):
        taken(written(tmp_path, "drawn.json", changed(document, path, value)))
    assert not (tmp_path / "masks").exists()


@pytest.mark.parametrize(
    ("packed", "words"),
    [
        ([255, 255, 255, 255, 56, 0, 0], "4294967295 values for 9 x 6 px"),
        ([300, 0, 0, 0], "no byte"),
        ([INF], "no list of bytes"),
        (None, "no list of bytes"),
    ],
)
def test_brush_strokes_are_counted_before_they_are_unpacked(
    tmp_path: Path, packed: Any, words: str
) -> None:
    value = {"rle": packed, "brushlabels": ["cat"]}
    tasks = changed(TASKS, TASK_REGION, {**REGION, "type": "brushlabels", "value": value})
    with pytest.raises(UserError, match=words):
        taken(written(tmp_path, "drawn.json", tasks))


def test_a_crowd_is_0_or_1() -> None:
    entry = {"id": 1, "category_id": 1, "segmentation": [[1, 1, 7, 1, 7, 5]]}
    found = [
        set(np.unique(draw_labels(({**entry, "iscrowd": crowd},), 6, 9, {1: 1})).tolist())
        for crowd in (0, 1)
    ]
    assert found == [{0, 1}, {0, 255}]
    with pytest.raises(ValueError, match="its iscrowd is '0', not 0 or 1"):
        draw_labels(({**entry, "iscrowd": "0"},), 6, 9, {1: 1})


def test_run_lengths_beyond_any_picture() -> None:
    with pytest.raises(ValueError, match="whole numbers"):
        run_lengths([0, 10**4299, 9 * 10**4299])


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("t.csv", "image,tags,tags\na.png,cat,dog\nb.png,dog,cat\n", "has 'tags' twice"),
        ("t.csv", "image,Image,tags\na.png,b.png,cat\nb.png,a.png,dog\n", "has 'image' twice"),
        (
            "t.json",
            '{"a.png": ["cat"], "b.png": ["dog"], "a.png": ["dog"]}',
            "'a.png' stands tw",
        ),
        ("t.json", '[{"image": "a.png", "tags": "cat", "Tags": "dog"}]', "has 'tags' twice"),
        ("t.json", '[{"image": null, "tags": "cat"}]', "the image of entry 1 is null"),
        ("t.json", '[{"image": "a.png", "tags": "cat"}, 1e400]', "entry 2 has no picture"),
        ("t.json", DEEP, "nested too deeply"),
        ("t.jsonl", f"{DEEP}\n", "nested too deeply"),
    ],
)
def test_tables_that_leave_open_what_is_meant(
    tmp_path: Path, name: str, text: str, words: str
) -> None:
    written(tmp_path, name, text)
    with pytest.raises(UserError, match=words):
        build_index(TableSettings(file=name), tmp_path)


@pytest.mark.parametrize("name", ["t.json", "t.jsonl"])
def test_separators_of_lines_in_texts_end_no_line(tmp_path: Path, name: str) -> None:
    rows = [{"image": f"{n}.png", "tags": "cat", "note": "one\u2028two\x85"} for n in "ab"]
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    text = f"[{','.join(lines)}]" if name == "t.json" else "\r\n".join(lines)
    written(tmp_path, name, text)
    assert len(build_index(TableSettings(file=name), tmp_path).records) == 2
