"""COCO's outlines: drawn as pycocotools draws them, and refused by name where they are none."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from wsss.data.formats.coco import CocoSettings, draw_labels, list_coco, rasterise_masks
from wsss.data.formats.coco_shapes import object_mask
from wsss.errors import UserError

HEIGHT, WIDTH = 12, 16


def annotation(segmentation: Any, key: Any = 7) -> dict[str, Any]:
    return {"id": key, "image_id": 1, "category_id": 3, "segmentation": segmentation}


def compressed(mask: np.ndarray) -> dict[str, Any]:
    from pycocotools import mask as masks

    encoded = masks.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": [int(n) for n in encoded["size"]], "counts": encoded["counts"].decode()}


@pytest.mark.parametrize("seed", range(20))
def test_run_lengths_in_text(seed: int) -> None:
    rng = np.random.default_rng(seed)
    mask = rng.random((HEIGHT, WIDTH)) < rng.random()
    if seed % 2:  # long runs, whose differences are negative
        mask = np.repeat(np.repeat(rng.random((3, 4)) < 0.5, 40, 0), 60, 1)
    found = object_mask(annotation(compressed(mask)), *mask.shape)
    np.testing.assert_array_equal(found, mask)


def test_polygons_as_pycocotools_draws_them() -> None:
    from pycocotools import mask as masks

    rng = np.random.default_rng(0)
    for _ in range(20):
        polygons = [
            np.round(rng.uniform(-2, 18, 2 * int(rng.integers(3, 8))), 2).tolist() for _ in range(2)
        ]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            encoded = masks.merge(masks.frPyObjects(polygons, HEIGHT, WIDTH))
            expected = np.asarray(masks.decode(encoded)).astype(bool)
        np.testing.assert_array_equal(object_mask(annotation(polygons), HEIGHT, WIDTH), expected)


def test_two_points_are_no_box() -> None:
    triangle = [1.0, 1.0, 9.0, 1.0, 9.0, 9.0]
    alone = object_mask(annotation([triangle]), HEIGHT, WIDTH)
    assert alone.any()
    np.testing.assert_array_equal(
        object_mask(annotation([[2, 2, 6, 6], triangle]), HEIGHT, WIDTH), alone
    )
    assert not object_mask(annotation([[2, 2, 6, 6]]), HEIGHT, WIDTH).any()
    assert not object_mask(annotation([]), HEIGHT, WIDTH).any()


BAD = {
    "odd": [[1, 1, 5, 1, 5, 5, 1]],
    "one point": [[1, 1]],
    "text": [["1", "1", "5", "1", "5", "5"]],
    "far": [[1, 1, 5, 1, 5, 1e300]],
    "far below": [[1, 1, 5, 1, 5, -1e9]],
    "nan": [[1, 1, 5, 1, 5, float("nan")]],
    "infinite": [[1, 1, 5, 1, 5, float("inf")]],
    "none": None,
    "other size": {"size": [1, 1], "counts": [192]},
    "huge size": {"size": [10**9, 10**9], "counts": [10**18]},
    "short": {"size": [HEIGHT, WIDTH], "counts": [1, 2]},
    "long": {"size": [HEIGHT, WIDTH], "counts": [10**12]},
    "negative": {"size": [HEIGHT, WIDTH], "counts": [200, -8]},
    "fractions": {"size": [HEIGHT, WIDTH], "counts": [191.5, 0.5]},
    "no counts": {"size": [HEIGHT, WIDTH]},
    "other text": {"size": [HEIGHT, WIDTH], "counts": "\u00e9\u00e9"},
    "cut text": {"size": [HEIGHT, WIDTH], "counts": "P"},
    "endless text": {"size": [HEIGHT, WIDTH], "counts": "o" * 10000},
    "long text": {"size": [HEIGHT, WIDTH], "counts": "oooo3" * 50},
}


@pytest.mark.parametrize("kind", BAD)
def test_what_is_no_outline_is_refused_with_its_annotation(tmp_path: Path, kind: str) -> None:
    with pytest.raises(ValueError, match=r"^annotation 7: "):
        object_mask(annotation(BAD[kind]), HEIGHT, WIDTH)
    write(tmp_path, [annotation(BAD[kind])])
    with pytest.raises(UserError, match=r"cannot draw its objects: annotation 7: "):
        rasterise_masks(tmp_path, workers=1)
    assert not (tmp_path / "masks").exists()


def write(root: Path, annotations: list[dict[str, Any]], **image: Any) -> None:
    (root / "annotations").mkdir(parents=True)
    for name in ("train", "val"):
        (root / f"{name}2014").mkdir()
        Image.new("RGB", (WIDTH, HEIGHT)).save(root / f"{name}2014" / f"{name}.jpg")
        entry = {"id": 1, "file_name": f"{name}.jpg", "width": WIDTH, "height": HEIGHT, **image}
        document = {
            "images": [entry],
            "annotations": annotations if name == "train" else [],
            "categories": [{"id": 3, "name": "dog"}],
        }
        (root / "annotations" / f"instances_{name}2014.json").write_text(json.dumps(document))


def test_an_annotation_without_an_id_is_named(tmp_path: Path) -> None:
    nameless = annotation([[1, 1, 5, 1, 5, 5]])
    del nameless["id"]
    with pytest.raises(ValueError, match="of category 3 has no id"):
        draw_labels((nameless,), HEIGHT, WIDTH, {3: 1})
    write(tmp_path, [annotation([]), nameless])
    for read in (
        lambda: rasterise_masks(tmp_path, workers=1),
        lambda: list_coco(CocoSettings(), tmp_path),
    ):
        with pytest.raises(UserError, match=r"annotation 1 of the list \(from 0\) has no id"):
            read()


@pytest.mark.parametrize("sides", [(0, 5), (-1, 5), (10**6, 10**6), (float("inf"), 5)])
def test_sizes_that_no_picture_has(tmp_path: Path, sides: tuple[float, float]) -> None:
    write(tmp_path, [], width=sides[0], height=sides[1])
    with pytest.raises(UserError, match="not a COCO instances file"):
        rasterise_masks(tmp_path, workers=1)


@pytest.mark.parametrize("numbers", [5, 7, 9])
def test_coordinates_come_in_pairs(numbers: int) -> None:
    annotation = {"id": 7, "segmentation": [[1.0] * numbers]}
    with pytest.raises(ValueError, match=f"annotation 7: a polygon of {numbers} numbers"):
        object_mask(annotation, 12, 16)


@pytest.mark.parametrize("position", range(8))
def test_each_coordinate_is_held_against_its_side(position: int) -> None:
    points = [1.0, 1.0, 9.0, 1.0, 9.0, 9.0, 1.0, 9.0]
    points[position] = 30.0 if position % 2 else 40.0
    with pytest.raises(ValueError, match=f"coordinate {points[position]:g}, far outside 16 x 12"):
        object_mask({"id": 7, "segmentation": [points]}, 12, 16)
