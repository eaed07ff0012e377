"""Long lists of a VOC devkit, in any order: each picture once, with the first of its lines."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from memory_helpers import peak_of
from PIL import Image

from wsss.data.build import build_index
from wsss.data.formats.voc import LISTS, VocSettings, find_voc_masks, list_voc
from wsss.data.index import Index
from wsss.data.records import ImageRecord
from wsss.errors import UserError


def _devkit(root: Path, **lists: Sequence[str]) -> Path:
    for folder in ("JPEGImages", LISTS):
        (root / folder).mkdir(parents=True)
    for name, names in lists.items():
        (root / LISTS / f"{name}.txt").write_text("".join(f"{each}\n" for each in names))
    return root


@pytest.mark.parametrize("seed", range(4))
def test_pictures_come_in_order_with_their_first_lines(tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    test, val = ([f"p{number}" for number in rng.permutation(40)[:30]] for _ in range(2))
    test += test[3:6] + test[4:5]
    listing = list_voc(VocSettings(), _devkit(tmp_path, test=test, val=val))
    assert [entry.name for entry in listing.entries] == sorted({*test, *val})
    for entry in listing.entries:
        expected = tuple(
            name for name in ("val", "test") if entry.name in {"val": val, "test": test}[name]
        )
        assert entry.sets == expected
        first = {"val": val, "test": test}[expected[0]]
        assert entry.line == first.index(entry.name) + 1
    twice = [(p.line, p.reason) for p in listing.problems if p.kind == "image listed twice"]
    assert sorted(twice) == [
        (line, f"{name} is listed twice, first in line {test.index(name) + 1}")
        for line, name in enumerate(test, start=1)
        if name in test[: line - 1]
    ]


def test_a_picture_to_train_on_is_none_to_score_on(tmp_path: Path) -> None:
    lists = {"train": ["b", "a"], "trainval": ["b"], "test": ["c", "a"], "val": ["b"]}
    listing = list_voc(VocSettings(), _devkit(tmp_path, **lists))
    found = [(p.file, p.line) for p in listing.problems if "held-out" in p.kind]
    assert sorted(found) == [(f"{LISTS}/test.txt", 2), (f"{LISTS}/val.txt", 1)]


def test_a_listed_picture_takes_few_bytes(tmp_path: Path) -> None:
    names = [f"p{number:05}" for number in range(5000)]
    root = _devkit(tmp_path, test=names, val=names[:10])
    list_voc(VocSettings(), root)
    listing, held, most = peak_of(lambda: list_voc(VocSettings(), root))
    assert len(listing.entries) == len(names)
    assert (most - held) / len(names) < 40


def test_masks_are_those_there_are_official_ones_first(tmp_path: Path) -> None:
    for file in (
        "SegmentationClass/b.png",
        "SegmentationClassAug/a.png",
        "SegmentationClassAug/b.png",
    ):
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).touch()
    sets = {"a": ("train_aug",), "b": ("train",), "c": ("val",), "d": ("test",)}
    records = [ImageRecord(name, sets[name], (), 4, 3, f"JPEGImages/{name}.jpg") for name in sets]
    masks, problems = find_voc_masks(VocSettings(), tmp_path, Index(("cat",), records))
    assert dict(masks) == {"a": "SegmentationClassAug/a.png", "b": "SegmentationClass/b.png"}
    assert [problem.file for problem in problems] == ["SegmentationClass/c.png"]


def test_a_devkit_without_any_list_says_which_it_may_have(tmp_path: Path) -> None:
    root = _devkit(tmp_path, holiday=["a"])
    with pytest.raises(UserError, match="there is no list of images here") as caught:
        list_voc(VocSettings(), root)
    assert "train_aug.txt" in str(caught.value) and str(root / LISTS) in str(caught.value)


def test_nobody_is_asked_whether_a_cat_is_a_car(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = _devkit(tmp_path, train=["a", "b"])
    (root / "Annotations").mkdir()
    for name, tag in (("a", "cat"), ("b", "car")):
        Image.new("RGB", (6, 4)).save(root / f"JPEGImages/{name}.jpg")
        text = f"<annotation><object><name>{tag}</name></object></annotation>"
        (root / f"Annotations/{name}.xml").write_text(text)
    build_index(VocSettings(), root)
    warned = capsys.readouterr().err
    assert "classes with one picture" in warned and "one class or two" not in warned
