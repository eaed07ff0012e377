"""Maps with classes from elsewhere through the export stage, and what is refused of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from imported_helpers import CLASSES, SIZES, export, write_pictures
from PIL import Image

from wsss.errors import UserError
from wsss.maps.map_store import map_size


@pytest.fixture
def data(tmp_path: Path) -> Path:
    write_pictures(tmp_path / "data")
    return tmp_path / "data"


@pytest.fixture
def seeds(tmp_path: Path) -> Path:
    (tmp_path / "seeds").mkdir()
    return tmp_path / "seeds"


def soft(name: str, tag: str) -> np.ndarray:
    """A map of a picture's size, 0 to 1."""
    rng = np.random.default_rng([CLASSES.index(tag), *SIZES[name]])
    return rng.random(SIZES[name], dtype=np.float32)


TAGS = {"one": ("cat", "dog"), "two": ("bird",)}


def write_archives(folder: Path, kind: Any = np.float32) -> None:
    for name, tags in TAGS.items():
        np.savez(folder / f"{name}.npz", **{tag: soft(name, tag).astype(kind) for tag in tags})


def test_archives_come_out_as_means_in_the_order_of_the_classes(data: Path, seeds: Path) -> None:
    write_archives(seeds)
    maps = export(data, seeds, {"kind": "class-maps"})
    assert {name: found.class_indices.tolist() for name, found in maps.items()} == {
        "one": [1, 2],
        "two": [0],
    }
    # 12 x 16 px: each of 3 x 4 values is the mean of 4 x 4 pixels.
    assert map_size(*SIZES["two"]) == (3, 4)
    wanted = soft("two", "bird").reshape(3, 4, 4, 4).mean(axis=(1, 3))
    assert np.abs(maps["two"].maps[0] - wanted).max() < 1e-3
    for position, tag in enumerate(("cat", "dog")):
        mean = float(soft("one", tag).mean())
        assert maps["one"].maps[position].mean() == pytest.approx(mean, abs=0.02)


def test_pictures_of_maps_are_shares_of_white(data: Path, seeds: Path) -> None:
    write_archives(seeds)
    by_array = export(data, seeds, {"kind": "class-maps"})
    for name, tags in TAGS.items():
        (seeds / f"{name}.npz").unlink()
        (seeds / name).mkdir()
        for tag in tags:
            deep = tag == "dog"
            values = soft(name, tag) * (65535 if deep else 255)
            kind = np.uint16 if deep else np.uint8
            Image.fromarray(values.round().astype(kind)).save(seeds / name / f"{tag}.png")
    by_picture = export(data, seeds, {"kind": "class-maps"})
    for name in TAGS:
        assert np.abs(by_picture[name].maps - by_array[name].maps).max() < 3e-3


def test_maps_of_the_stores_size_stay(data: Path, seeds: Path) -> None:
    for name, tags in TAGS.items():
        height, width = map_size(*SIZES[name])
        small = {tag: np.full((height, width), 0.25, np.float16) for tag in tags}
        np.savez(seeds / f"{name}.npz", **small)
    maps = export(data, seeds, {"kind": "class-maps"})
    assert all((found.maps == 0.25).all() for found in maps.values())


@pytest.mark.setting("cam.kind")
def test_label_maps(data: Path, seeds: Path) -> None:
    labels = {name: np.zeros(size, np.uint8) for name, size in SIZES.items()}
    labels["one"][4:8, 4:8] = 2
    labels["one"][12:16, 4:16] = 3
    labels["one"][0, 0] = 255  # not sure: of no class
    labels["one"][20, 20] = 1  # a class that is no tag of it
    for name, label in labels.items():
        Image.fromarray(label).save(seeds / f"{name}.png")
    maps = export(data, seeds, {"kind": "label-maps"})
    assert maps["one"].class_indices.tolist() == [1, 2] and not maps["two"].maps.any()
    for position, label in enumerate((2, 3)):
        wanted = naive_means((labels["one"] == label).astype(float))
        assert np.abs(maps["one"].maps[position] - wanted).max() < 1e-3


def naive_means(values: np.ndarray) -> np.ndarray:
    """Means over all pixels that a value of the store reaches into."""
    height, width = values.shape
    rows, columns = map_size(height, width)
    found = np.zeros((rows, columns))
    for i in range(rows):
        top, bottom = int(i * height / rows), int(np.ceil((i + 1) * height / rows))
        for j in range(columns):
            left, right = int(j * width / columns), int(np.ceil((j + 1) * width / columns))
            found[i, j] = values[top:bottom, left:right].mean()
    return found


def refusal(data: Path, seeds: Path, settings: dict[str, Any], **how: Any) -> UserError:
    with pytest.raises(UserError) as caught:
        export(data, seeds, settings, **how)
    assert not (data / "cams.h5").exists()
    return caught.value


def test_what_is_missing_is_listed(data: Path, seeds: Path) -> None:
    np.savez(seeds / "one.npz", cat=soft("one", "cat"))
    found = refusal(data, seeds, {"kind": "class-maps"})
    assert "2 of 2 are not here: one (dog), two (bird)" in found.found
    assert "2 of 2 are not here: one, two" in refusal(data, seeds, {"kind": "label-maps"}).found


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.zeros((12, 17), bool), "this map has 17 x 12 px"),
        (np.full((12, 16), 2.0), "this map has values from 2 to 2"),
        (np.full((12, 16), np.nan), "this map has values from nan"),
        (np.ones((12, 16), np.uint8), "nothing but 0 and 1, as uint8"),
        (np.ones((12, 16), np.int64), "this map is of type int64"),
        (np.array({"a": 1}), "cannot read this archive of maps"),
    ],
)
def test_arrays_that_are_no_maps(data: Path, seeds: Path, array: np.ndarray, words: str) -> None:
    write_archives(seeds)
    np.savez(seeds / "two.npz", bird=array)
    assert words in refusal(data, seeds, {"kind": "class-maps"}).found


def test_a_class_that_there_is_not(data: Path, seeds: Path) -> None:
    write_archives(seeds)
    np.savez(seeds / "two.npz", bird=soft("two", "bird"), bride=soft("two", "bird"))
    assert "of the class 'bride'" in refusal(data, seeds, {"kind": "class-maps"}).found
    for name, size in SIZES.items():
        Image.fromarray(np.full(size, 4, np.uint8)).save(seeds / f"{name}.png")
    assert "holds the label 4" in refusal(data, seeds, {"kind": "label-maps"}).found


def test_other_refusals(data: Path, seeds: Path) -> None:
    write_archives(seeds)
    found = refusal(data, seeds, {"kind": "class-maps"}, refine="patch-attention")
    assert "imported maps are taken as they are" in found.found
    assert "is not there" in refusal(data, seeds / "other", {"kind": "class-maps"}).found
    for name, size in SIZES.items():
        Image.fromarray(np.zeros((*size, 3), np.uint8)).save(seeds / f"{name}.png")
    (seeds / "two.npz").unlink()
    (seeds / "two").mkdir()
    Image.fromarray(np.zeros((12, 16, 3), np.uint8)).save(seeds / "two" / "bird.png")
    assert "mode 'RGB'" in refusal(data, seeds, {"kind": "class-maps"}).found
    (seeds / "two" / "bird.png").write_bytes(b"\x89PNG\r\n")
    assert "cannot read this map" in refusal(data, seeds, {"kind": "class-maps"}).found
