"""Masks without classes: run lengths against pycocotools, and which class each becomes."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from imported_helpers import CLASSES, SIZES, export, write_pictures
from pycocotools import mask as coco_mask

from wsss.cam.imported_masks import PictureMasks
from wsss.cam.mask_classes import Rule, class_maps_of
from wsss.cam.methods.registry import METHODS
from wsss.errors import UserError
from wsss.maps.map_store import MapStoreWriter, map_size
from wsss.project.config import ProjectConfig, resolve


def encoded(mask: np.ndarray, **more: Any) -> dict[str, Any]:
    """A mask as pycocotools writes it."""
    found = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {"segmentation": {**found, "counts": found["counts"].decode()}, **more}


def lengths(mask: np.ndarray) -> list[int]:
    """Run lengths, column by column, naively."""
    flat = mask.T.ravel().tolist()
    found, inside, run = [], False, 0
    for value in flat:
        if value != inside:
            found.append(run)
            inside, run = value, 0
        run += 1
    return [*found, run]


def test_run_lengths_are_those_of_pycocotools() -> None:
    rng = np.random.default_rng(0)
    for density in (0.0, 0.02, 0.5, 0.98, 1.0):
        for size in ((1, 1), (7, 5), (90, 131)):
            mask = rng.random(size) < density
            mask[:, : size[1] // 3] = True  # long runs, whose differences are negative
            whole = {"segmentation": {"size": list(size), "counts": lengths(mask)}}
            for found in PictureMasks([encoded(mask), whole], size, "here"):
                assert found.dtype == bool and np.array_equal(found, mask)


@pytest.mark.parametrize(
    ("counts", "words"),
    [
        ([5], "add up to 5"),
        ([200], "add up to 200"),
        ([-1, 121], "not whole numbers"),
        ([1.5, 118.5], "not whole numbers"),
        ("", "add up to 0"),
        ("\x01", "a letter that there is not"),
        ("P", "cut short"),
        ("oooooooooo", "a letter that there is not"),
        ("ü", "cannot be decoded"),
        (3, "cannot be decoded"),
    ],
)
def test_run_lengths_that_are_none(counts: Any, words: str) -> None:
    entry = {"segmentation": {"size": [10, 12], "counts": counts}}
    with pytest.raises(UserError, match=words):
        list(PictureMasks([entry], (10, 12), "here"))


def test_letters_at_random_give_masks_or_errors() -> None:
    draw = random.Random(0)
    for _ in range(2000):
        counts = "".join(chr(draw.randrange(48, 112)) for _ in range(draw.randrange(12)))
        entry = {"segmentation": {"size": [3, 4], "counts": counts}}
        try:
            (mask,) = PictureMasks([entry], (3, 4), "here")
        except UserError:
            continue
        assert mask.shape == (3, 4)


# --- which class a mask becomes -------------------------------------------------------------

# Two classes: the first fills the left half, the second the lower right quarter.
CAMS = np.zeros((2, 8, 8), np.float32)
CAMS[0, :, :4] = 0.75
CAMS[1, 4:, 4:] = 0.875


def box(top: int, bottom: int, left: int, right: int) -> np.ndarray:
    mask = np.zeros((8, 8), bool)
    mask[top:bottom, left:right] = True
    return mask


def assigned(*masks: np.ndarray, **rule: Any) -> tuple[np.ndarray, int]:
    return class_maps_of(masks, CAMS, Rule(background=0.4, keep_uncovered=False, **rule))


def test_a_mask_is_of_the_class_that_fills_most_of_it() -> None:
    # 16 of 24 pixels are the first class's, 4 the second's.
    maps, taken = assigned(box(2, 6, 0, 6))
    assert taken == 1
    assert np.array_equal(maps[0], box(2, 6, 0, 6)) and not maps[1].any()


def test_a_mask_that_its_class_fills_half_of_is_left_out() -> None:
    # 4 of 8 pixels.
    maps, taken = assigned(box(4, 6, 2, 4) | box(0, 2, 6, 8))
    assert taken == 0 and not maps.any()
    maps, taken = assigned(box(4, 6, 2, 4) | box(0, 2, 6, 8), min_coverage=0.49)
    assert taken == 1 and maps[0].sum() == 8


def test_a_mask_that_holds_nearly_all_of_a_region_is_taken() -> None:
    # It has 14 of the second class's 16 pixels, which are a half of it.
    mask = box(0, 8, 4, 8)
    mask[4, 4:6] = mask[0, 4] = mask[1, 4] = False
    assert assigned(mask, min_coverage=0.5)[1] == 1
    assert assigned(mask, min_coverage=0.5, min_share=0.9)[1] == 0


def test_where_masks_overlap_the_fuller_one_has_the_pixel_in_either_order() -> None:
    whole, part = box(4, 8, 2, 8), box(4, 8, 2, 4)
    for masks in ((whole, part), (part, whole)):
        maps, taken = assigned(*masks)
        assert taken == 2
        assert np.array_equal(maps[0], part) and np.array_equal(maps[1], whole & ~part)


def test_of_two_that_are_as_full_the_first_one_keeps_the_pixel() -> None:
    # Two of three columns are each mask's own class's; the middle two are in both.
    left, right = box(4, 8, 2, 5), box(4, 8, 3, 6)
    maps, taken = assigned(left, right)
    assert taken == 2
    assert np.array_equal(maps[0], left) and np.array_equal(maps[1], right & ~left)
    maps, _ = assigned(right, left)
    assert np.array_equal(maps[0], left & ~right) and np.array_equal(maps[1], right)


def test_the_rule_is_the_settings_where_nothing_else_is_said() -> None:
    settings: Any = METHODS.parse(
        {"method": "imported", "kind": "masks", "cams_from": "a"}, where="cam"
    )
    rule = Rule(background=settings.background)
    for name in ("min_coverage", "min_share", "keep_uncovered"):
        assert getattr(rule, name) == getattr(settings, name)


def test_where_no_mask_lies_the_cam_stays() -> None:
    rule = Rule(background=0.4)
    # A mask of background covers a part of the first class and takes it away.
    maps, taken = class_maps_of([box(0, 4, 3, 8), box(4, 8, 4, 8)], CAMS, rule)
    assert taken == 1
    expected = CAMS[0].copy()
    expected[:4, 3] = 0
    assert np.array_equal(maps[0], expected) and np.array_equal(maps[1], box(4, 8, 4, 8))


def test_no_masks_and_no_classes() -> None:
    maps, taken = class_maps_of([], CAMS, Rule(background=0.4))
    assert taken == 0 and np.array_equal(maps, CAMS)
    maps, taken = class_maps_of([box(0, 2, 0, 2)], CAMS[:0], Rule(background=0.4))
    assert maps.shape == (0, 8, 8) and taken == 0


# --- through the export ---------------------------------------------------------------------


@pytest.fixture
def data(tmp_path: Path) -> Path:
    write_pictures(tmp_path / "data")
    return tmp_path / "data"


@pytest.fixture
def seeds(tmp_path: Path) -> Path:
    (tmp_path / "seeds").mkdir()
    return tmp_path / "seeds"


def write_cams(path: Path, classes: tuple[str, ...] = CLASSES) -> Path:
    """CAMs with a high left half of the last class, of the first tag a low one."""
    with MapStoreWriter(path, classes=classes, attributes={}) as store:
        for name, indices in (("one", [1, 2]), ("two", [0])):
            height, width = map_size(*SIZES[name])
            maps = np.full((len(indices), height, width), 0.1, np.float32)
            maps[-1, :, : width // 2] = 0.9
            store.add(name, indices, maps, SIZES[name])
    return path


MASKS = {"kind": "masks", "cams_from": "other"}


def left(name: str, share: float) -> np.ndarray:
    mask = np.zeros(SIZES[name], bool)
    mask[:, : round(SIZES[name][1] * share)] = True
    return mask


def write_masks(seeds: Path, **more: Any) -> None:
    (seeds / "one.json").write_text(json.dumps([encoded(left("one", 0.75), **more)]))
    (seeds / "two.json").write_text(json.dumps({"annotations": [encoded(left("two", 0.25))]}))


@pytest.mark.setting("cam.kind", "cam.keep_uncovered")
def test_masks_get_the_classes_of_the_cams(data: Path, seeds: Path, tmp_path: Path) -> None:
    write_masks(seeds)
    cams = write_cams(tmp_path / "other.h5")
    maps = export(data, seeds, MASKS, cams=cams)
    assert maps["one"].class_indices.tolist() == [1, 2] and not maps["one"].maps[0].any()
    dog = maps["one"].maps[1]
    assert dog[:, :5].min() == 1 and dog[:, 6:].max() == 0
    bird = maps["two"].maps[0]
    # The mask, then what the CAM has and no mask covers, then nothing.
    assert (bird[:, 0] == 1).all() and 0.5 < bird[0, 1] < 0.91 and (bird[:, 3] == 0).all()
    without = export(data, seeds, {**MASKS, "keep_uncovered": False}, cams=cams)
    assert not without["two"].maps[0][:, 1:].any()


@pytest.mark.setting("cam.file")
def test_one_file_of_all_pictures(data: Path, seeds: Path, tmp_path: Path) -> None:
    write_masks(seeds)
    cams = write_cams(tmp_path / "other.h5")
    apart = export(data, seeds, MASKS, cams=cams)
    document = {
        "images": [
            {"id": 7, "file_name": "pictures/one.png"},
            {"id": 9, "file_name": "two.png"},
        ],
        "annotations": [
            encoded(left("two", 0.25), image_id=9, category_id=3),
            encoded(left("one", 0.75), image_id="7"),  # as VIA has them
        ],
    }
    (seeds / "all.json").write_text(json.dumps(document))
    together = export(data, seeds, {**MASKS, "file": "all.json"}, cams=cams)
    for name in SIZES:
        assert np.array_equal(together[name].maps, apart[name].maps)


@pytest.mark.setting("cam.min_score")
def test_scores(data: Path, seeds: Path, tmp_path: Path) -> None:
    cams = write_cams(tmp_path / "other.h5")
    settings = {**MASKS, "min_score": 0.5, "keep_uncovered": False}
    write_masks(seeds, predicted_iou=0.4)
    (seeds / "two.json").write_text(json.dumps([encoded(left("two", 0.25), score=0.6)]))
    maps = export(data, seeds, settings, cams=cams)
    assert not maps["one"].maps.any() and maps["two"].maps.any()
    write_masks(seeds)
    with pytest.raises(UserError, match="a mask has no score"):
        export(data, seeds, settings, cams=cams)


# Of the picture "two", 12 x 16 px, whose CAM is above 0.4 in the left half. A mask of 12 columns of
# the upper half has two thirds of itself there, which is half of the region. One of all but the
# last row has half of itself there, and 11 twelfths of the region.
UPPER = np.zeros((12, 16), bool)
UPPER[:6, :12] = True
MOST = np.ones((12, 16), bool)
MOST[11:] = False


@pytest.mark.parametrize(
    ("mask", "settings"),
    [
        pytest.param(
            UPPER, {"min_coverage": 0.7}, marks=pytest.mark.setting("cam.min_coverage")
        ),
        pytest.param(MOST, {"min_share": 0.95}, marks=pytest.mark.setting("cam.min_share")),
        # Nothing is above it: there is no region.
        pytest.param(UPPER, {"background": 0.95}, marks=pytest.mark.setting("cam.background")),
    ],
)  # fmt: skip
def test_masks_that_the_settings_leave_out(
    data: Path, seeds: Path, tmp_path: Path, mask: np.ndarray, settings: dict[str, Any]
) -> None:
    write_masks(seeds)
    (seeds / "two.json").write_text(json.dumps([encoded(mask)]))
    cams = write_cams(tmp_path / "other.h5")
    always = {**MASKS, "keep_uncovered": False}
    taken = export(data, seeds, always, cams=cams)["two"].maps[0]
    assert np.array_equal(taken, naive_means(mask))
    assert not export(data, seeds, {**always, **settings}, cams=cams)["two"].maps.any()


def naive_means(mask: np.ndarray) -> np.ndarray:
    """Of 4 x 4 pixels each."""
    return mask.reshape(3, 4, 4, 4).mean(axis=(1, 3)).astype(np.float32)


def test_what_is_refused(data: Path, seeds: Path, tmp_path: Path) -> None:
    cams = write_cams(tmp_path / "other.h5")

    def refused(words: str, settings: dict[str, Any] = MASKS, given: Path | None = cams) -> None:
        with pytest.raises(UserError, match=words):
            export(data, seeds, settings, cams=given)
        assert not (data / "cams.h5").exists()

    (seeds / "one.json").write_text(json.dumps([encoded(np.zeros((5, 5)))]))
    refused("1 of 2 are not here: two")
    (seeds / "two.json").write_text("{")
    refused(r"this mask has the size \[5, 5\]")
    (seeds / "one.json").write_text(json.dumps([{"segmentation": [[0, 0, 1, 0, 1, 1]]}]))
    refused("this mask is not in run lengths")
    (seeds / "one.json").write_text("[]")
    refused("this is not JSON")
    (seeds / "two.json").write_text("[3]")
    refused("this holds no masks")
    write_masks(seeds)
    refused("its CAMs were not given", given=None)
    refused("are of other classes", given=write_cams(tmp_path / "b.h5", ("a", "b", "c")))
    one_file = {**MASKS, "file": "all.json"}
    refused("this file does not exist", one_file)
    refused("leads out of the folder", {**MASKS, "file": "../all.json"})
    image = {"id": 1, "file_name": "../one.png"}
    (seeds / "all.json").write_text(json.dumps({"images": [image], "annotations": []}))
    refused("leads out of its folder", one_file)
    (seeds / "all.json").write_text(json.dumps({"images": [], "annotations": [{"image_id": 4}]}))
    refused("a mask of the image 4", one_file)


# --- runs -----------------------------------------------------------------------------------


def runs(**cams: dict[str, Any]) -> ProjectConfig:
    base = {"root": "own", "index": {"format": "folder"}}
    own = {k: {**base, "cam": v} for k, v in cams.items()}
    own["elsewhere"] = {**base, "root": "far"}
    return resolve({"roots": {"own": "x", "far": "y", "seeds": "z"}, "runs": own})


def by(run: str, **more: Any) -> dict[str, Any]:
    return {"method": "imported", "kind": "masks", "cams_from": run, **more}


@pytest.mark.setting("cam.cams_from")
def test_masks_name_another_run_and_a_folder(tmp_path: Path) -> None:
    config = runs(a={}, b=by("a"), c={"method": "imported"})
    cam = config.run("b").stages["cam"]
    assert (cam.cams_run, cam.seeds_root) == ("a", "seeds")
    assert config.seeds_root("a") == {}
    with pytest.raises(UserError, match="the data set of run 'b' is not there"):
        config.seeds_root("b")
    with pytest.raises(UserError, match="names no run"):
        runs(a={"method": "imported", "kind": "masks"})
    with pytest.raises(UserError, match=r"cam\.kind is 'class-maps'"):
        runs(a={}, b={"method": "imported", "cams_from": "a"})
    with pytest.raises(UserError, match="unknown run 'd'"):
        runs(a={}, b=by("d"))
    with pytest.raises(UserError, match="in a circle"):
        runs(a=by("b"), b=by("a"))
    with pytest.raises(UserError, match="unknown root 'sedes'"):
        runs(a={}, b=by("a", seeds="sedes"))
    with pytest.raises(UserError, match="is on the data set 'far'"):
        runs(b=by("elsewhere"))


@pytest.mark.setting("cam.seeds")
def test_the_folder_is_that_of_the_key(tmp_path: Path) -> None:
    for name in ("seeds", "others"):
        (tmp_path / name).mkdir()
    roots = {name: str(tmp_path / name) for name in ("seeds", "others")}
    run = {"root": "seeds", "index": {"format": "folder"}, "cam": {"method": "imported"}}
    other = {**run, "cam": {"method": "imported", "seeds": "others"}}
    config = resolve({"roots": roots, "runs": {"a": run, "b": other}})
    assert config.seeds_root("a") == {"seeds-root": tmp_path / "seeds"}
    assert config.seeds_root("b") == {"seeds-root": tmp_path / "others"}
