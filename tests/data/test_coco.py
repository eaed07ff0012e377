from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from wsss.data.build import build_index, build_masks, listing_fingerprint, mask_fingerprint
from wsss.data.formats.coco import CocoSettings, draw_labels, list_coco, rasterise_masks
from wsss.data.images import read_label
from wsss.errors import UserError

COCO = CocoSettings()
CATEGORIES = [{"id": 18, "name": "dog"}, {"id": 1, "name": "person"}, {"id": 90, "name": "brush"}]
VALUES = {1: 1, 18: 2, 90: 3}


def _box(top: int, left: int, bottom: int, right: int) -> list[list[float]]:
    return [[left, top, right, top, right, bottom, left, bottom]]


def _runs(mask: np.ndarray) -> dict[str, Any]:
    """Column-major run lengths, starting with zeros, counted pixel by pixel."""
    counts, current = [0], 0
    for value in mask.T.ravel().astype(int):
        if value != current:
            counts.append(0)
            current = value
        counts[-1] += 1
    return {"counts": counts, "size": list(mask.shape)}


def _object(key: int, category: int, segmentation: Any, image: int = 1, crowd: int = 0) -> dict:
    return {
        "id": key,
        "image_id": image,
        "category_id": category,
        "segmentation": segmentation,
        "iscrowd": crowd,
    }


def _write(root: Path, year_set: str, images: list[dict], annotations: list[dict]) -> None:
    content = {"images": images, "annotations": annotations, "categories": CATEGORIES}
    (root / "annotations").mkdir(exist_ok=True)
    (root / f"annotations/instances_{year_set}.json").write_text(json.dumps(content))
    (root / year_set).mkdir(exist_ok=True)


def _image(root: Path, year_set: str, key: int, height: int = 12, width: int = 16) -> dict:
    name = f"COCO_{year_set}_{key:012d}.jpg"
    (root / year_set).mkdir(exist_ok=True)
    Image.new("RGB", (width, height)).save(root / year_set / name)
    return {"id": key, "file_name": name, "width": width, "height": height}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    train = [_image(tmp_path, "train2014", 1), _image(tmp_path, "train2014", 2)]
    objects = [_object(7, 18, _box(2, 3, 8, 9)), _object(8, 1, _box(0, 0, 12, 16), crowd=0)]
    _write(tmp_path, "train2014", train, objects)
    crowd = np.zeros((10, 10), bool)
    crowd[:, 4:] = True
    val = [_image(tmp_path, "val2014", 3, 10, 10)]
    _write(tmp_path, "val2014", val, [_object(9, 90, _runs(crowd), image=3, crowd=1)])
    return tmp_path


def test_index_has_classes_by_original_id_and_images_without_objects(root: Path) -> None:
    index = build_index(COCO, root)
    assert index.classes == ("person", "dog", "brush")
    assert [(r.name[-1], r.sets, r.tags) for r in index.records] == [
        ("1", ("train",), ("person", "dog")),
        ("2", ("train",), ()),
        ("3", ("val",), ("brush",)),
    ]
    assert index.records[0].path == "train2014/COCO_train2014_000000000001.jpg"
    assert [record.name[-1] for record in index.training_set().records] == ["1"]


def test_names_of_categories_that_look_alike_are_meant(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in (root / "annotations").iterdir():
        path.write_text(path.read_text().replace("brush", "dogs"))
    assert build_index(COCO, root).classes == ("person", "dog", "dogs")
    assert "one class or two" not in capsys.readouterr().err


@pytest.mark.parametrize("workers", [1, 2])
def test_masks_are_drawn_once_and_found(root: Path, workers: int) -> None:
    index = build_index(COCO, root)
    with pytest.raises(UserError, match="wsss coco-masks"):
        build_masks(COCO, root, index)
    rasterise_masks(root, workers=workers)
    masks = build_masks(COCO, root, index)
    assert len(masks) == 3
    first, second, third = (read_label(root / masks[name]) for name in sorted(masks))
    expected = np.full((12, 16), 1)
    expected[2:8, 3:9] = 2
    np.testing.assert_array_equal(first, expected)
    assert not second.any()
    np.testing.assert_array_equal(third, np.repeat([[0] * 4 + [255] * 6], 10, axis=0))
    table = json.loads((root / "masks/categories.json").read_text())
    assert table["rule"] == "smallest-on-top"
    assert table["classes"][1] == {"label": 2, "name": "dog", "original_id": 18}


def test_smaller_objects_lie_on_larger_ones_and_crowds_below_all() -> None:
    rng = np.random.default_rng(3)
    objects, drawn = [], []
    for key in range(9):
        mask = np.zeros((20, 20), bool)
        top, left = rng.integers(0, 12, 2)
        height, width = rng.integers(2, 12, 2)
        mask[top : top + height, left : left + width] = True
        category, crowd = int(rng.choice([1, 18, 90])), int(key in (2, 5))
        objects.append(_object(key, category, _runs(mask), crowd=crowd))
        drawn.append((mask, VALUES[category], crowd, key))
    expected = np.zeros((20, 20), np.uint8)
    for y in range(20):
        for x in range(20):
            here = [each for each in drawn if each[0][y, x]]
            singles = [each for each in here if not each[2]]
            if singles:
                best = min(singles, key=lambda each: (each[0].sum(), -each[3]))
                expected[y, x] = best[1]
            elif here:
                expected[y, x] = 255
    assert set(np.unique(expected)) == {0, 1, 2, 3, 255}
    for order in (objects, objects[::-1]):
        np.testing.assert_array_equal(draw_labels(tuple(order), 20, 20, VALUES), expected)


def test_every_problem_is_reported_at_once(root: Path) -> None:
    images = [_image(root, "train2014", key) for key in (1, 2, 4)]
    images[1]["width"] = 17
    (root / "train2014" / images[2]["file_name"]).unlink()
    images.append({"id": 5, "file_name": "../escape.jpg", "width": 1, "height": 1})
    objects = [_object(7, 5, _box(2, 3, 8, 9)), _object(8, 1, _box(0, 0, 2, 2), image=77)]
    _write(root, "train2014", images, objects)
    with pytest.raises(UserError) as caught:
        build_index(COCO, root)
    for expected in (
        "000000000002.jpg: it is 16 x 12, but annotations/instances_train2014.json says 17 x 12",
        "there is no train2014/COCO_train2014_000000000004.jpg",
        "'../escape.jpg' is not a plain file name",
        "image 1: category 5 is not listed",
        "objects of image 77, which is not listed",
    ):
        assert expected in caught.value.found


def test_a_picture_may_be_as_large_as_any_and_no_larger(root: Path) -> None:
    image = {**_image(root, "train2014", 1), "width": 17800, "height": 10000}
    _write(root, "train2014", [image], [])
    assert list_coco(COCO, root).entries[0].size == (17800, 10000)
    _write(root, "train2014", [{**image, "height": 10001}], [])
    with pytest.raises(UserError, match="image 1 of 17800 x 10001 px"):
        list_coco(COCO, root)


def test_two_categories_of_one_name(root: Path) -> None:
    for path in (root / "annotations").iterdir():
        path.write_text(path.read_text().replace("brush", "dog"))
    (problem, *_) = list_coco(COCO, root).problems
    assert problem.reason == "'dog' stands twice in the list"


def test_bad_segmentation_is_listed_and_nothing_written(root: Path) -> None:
    objects = [_object(7, 18, [[1, 2]]), _object(8, 1, {"size": [12, 16]})]
    _write(root, "train2014", [_image(root, "train2014", 1)], objects)
    with pytest.raises(UserError, match="000000000001: cannot draw its objects"):
        rasterise_masks(root, workers=1)
    assert not (root / "masks").exists()
    assert not list(root.glob(".*"))


def _drop_keys(root: Path) -> None:
    (root / "annotations/instances_val2014.json").write_text('{"images": [{"id": 1}]}')


def _break_json(root: Path) -> None:
    (root / "annotations/instances_val2014.json").write_text('{"images": [')


def _other_categories(root: Path) -> None:
    path = root / "annotations/instances_val2014.json"
    path.write_text(path.read_text().replace("brush", "broom"))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_drop_keys, "not a COCO instances file"),
        (_break_json, "this is not JSON"),
        (_other_categories, "different categories"),
        (lambda root: (root / "annotations/instances_val2014.json").unlink(), "cocodataset.org"),
        (lambda root: (root / "val2014").rename(root / "val"), "no val2014/"),
    ],
)
def test_missing_or_damaged_parts(
    root: Path, damage: Callable[[Path], object], message: str
) -> None:
    damage(root)
    with pytest.raises(UserError, match=message):
        build_index(COCO, root)


def test_masks_of_other_classes_or_incomplete_ones_are_refused(root: Path) -> None:
    rasterise_masks(root, workers=1)
    index = build_index(COCO, root)
    next((root / "masks/val2014").iterdir()).unlink()
    with pytest.raises(UserError, match="this mask does not exist"):
        build_masks(COCO, root, index)
    path = root / "masks/categories.json"
    path.write_text(path.read_text().replace("brush", "broom"))
    with pytest.raises(UserError, match="another rule or for other classes"):
        build_masks(COCO, root, index)


def test_fingerprints_follow_the_annotations(root: Path) -> None:
    before = listing_fingerprint(COCO, root), mask_fingerprint(COCO, root)
    rasterise_masks(root, workers=1)
    assert (listing_fingerprint(COCO, root), mask_fingerprint(COCO, root)) == before
    path = root / "annotations/instances_val2014.json"
    path.write_text(path.read_text().replace("000000000003", "000000000004"))
    assert listing_fingerprint(COCO, root) != before[0]
    assert mask_fingerprint(COCO, root) != before[1]
