from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from wsss.data.build import build_index, build_masks, listing_fingerprint, mask_fingerprint
from wsss.data.formats.class_folders import ClassFoldersSettings
from wsss.data.formats.demo import DemoSettings
from wsss.data.formats.folder import FolderSettings
from wsss.data.images import write_label
from wsss.data.listing import SHOWN_PROBLEMS
from wsss.errors import UserError

FOLDER = FolderSettings()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "images").mkdir()
    (tmp_path / "images/.DS_Store").write_text("")
    for name in ("a.jpg", "b.PNG", "my cat.2.png"):
        Image.new("RGB", (8, 6)).save(tmp_path / "images" / name)
    (tmp_path / "labels.csv").write_text("image,tags\na.jpg,dog; cat\nb,dog\nmy cat.2.png,cat;\n")
    return tmp_path


def _offenders(root: Path, config: FolderSettings = FOLDER) -> str:
    with pytest.raises(UserError) as caught:
        build_index(config, root)
    return caught.value.found


def test_a_line_break_in_a_name_is_said(tmp_path: Path) -> None:
    for name in ("a", "b\nc", "d\re"):
        (tmp_path / "cat").mkdir(exist_ok=True)
        Image.new("RGB", (8, 6)).save(tmp_path / "cat" / f"{name}.png")
    found = _offenders(tmp_path, ClassFoldersSettings())
    assert found.count("line break or another control character") == 2
    # Of the file, not of a line in one.
    assert "'cat/b\\nc.png': its name" in found and "'cat/d\\re.png': its name" in found


def test_only_what_is_shown_is_compared_with_all_names(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared: list[str] = []

    def near(word: str, names: Iterable[str], n: int) -> list[str]:
        compared.append(word)
        return [name for name in names if name[0] == word[0]][:n]

    monkeypatch.setattr("wsss.data.listing.difflib.get_close_matches", near)
    lines = "".join(f"a{number}.jpeg,dog\n" for number in range(200))
    (root / "labels.csv").write_text(f"image,tags\n{lines}")
    assert "did you mean 'a.jpg'?" in _offenders(root)
    assert len(compared) == SHOWN_PROBLEMS


def test_folder_without_sets_is_all_training(root: Path) -> None:
    index = build_index(FOLDER, root)
    assert index.classes == ("cat", "dog")
    assert [(r.name, r.sets, r.tags, r.path) for r in index.records] == [
        ("a", ("train",), ("cat", "dog"), "images/a.jpg"),
        ("b", ("train",), ("dog",), "images/b.PNG"),
        ("my cat.2", ("train",), ("cat",), "images/my cat.2.png"),
    ]


@pytest.mark.setting("index.classes")
def test_class_order_from_file_or_setting(root: Path) -> None:
    (root / "classes.txt").write_text("dog\n\ncat\n")
    assert build_index(FOLDER, root).classes == ("dog", "cat")
    chosen = build_index(FolderSettings(classes=("yak", "dog", "cat")), root)
    assert chosen.classes == ("yak", "dog", "cat")
    assert chosen.records[0].tags == ("dog", "cat")


def test_sets_and_untagged_held_out_images(root: Path) -> None:
    (root / "labels.csv").write_text(
        "\ufeffImage, tags, set\r\na.jpg, dog, train\r\nb,,val\r\nmy cat.2,,test\r\n"
    )
    index = build_index(FOLDER, root)
    assert [record.sets for record in index.records] == [("train",), ("val",), ("test",)]
    assert [record.tags for record in index.records] == [("dog",), (), ()]


def test_every_problem_is_reported_at_once_with_its_place(root: Path) -> None:
    for name in ("c.png", "d.png", "e.png", "a.png"):
        Image.new("RGB", (8, 6)).save(root / "images" / name)
    (root / "images/notes.txt").write_text("")
    (root / "images/b.PNG").write_bytes(b"damaged")
    (root / "classes.txt").write_text("cat\ndog\ncat\nbackground\n")
    (root / "labels.csv").write_text(
        "image,tags,set\n"
        "a.png,cat,train\n"
        "b,dog,train\n"
        "c,dgo,train\n"
        "c.png,dog,val\n"
        "d,,train\n"
        "my cat.2,cat,trian\n"
        "my_cat.2.png,cat,train\n"
        "e\n"
    )
    message = _offenders(root)
    for expected in (
        "images/a.png: a.jpg has the same name but for its suffix",
        "images/notes.txt: not a picture",
        "images/b.PNG: cannot read this picture",
        "classes.txt, line 3: 'cat' stands twice",
        "classes.txt, line 4: 'background' is reserved",
        "labels.csv, line 4: 'dgo' is not in the class list; did you mean 'dog'?",
        "labels.csv, line 5: c is listed twice, first in line 4",
        "labels.csv, line 6: d has no tags",
        "labels.csv, line 7: 'trian' is none of train, val, test; did you mean 'train'?",
        "labels.csv, line 8: there is no images/my_cat.2.png; did you mean 'my cat.2.png'?",
        "labels.csv, line 9: 1 cells instead of 3",
        "images/e.png: not listed in labels.csv",
    ):
        assert expected in message
    assert len(message.splitlines()) == 1 + int(message.split()[0])


def test_more_classes_than_a_label_has_values_for(root: Path) -> None:
    names = ("cat", "dog", *(f"class {number}" for number in range(253)))
    (root / "classes.txt").write_text("\n".join(names))
    assert "255 classes, but a label picture holds at most 254" in _offenders(root)
    with pytest.raises(UserError, match="255 classes are more than a label picture can hold"):
        FolderSettings(classes=names)
    assert FolderSettings(classes=names[:254]).classes == names[:254]


def test_tags_that_differ_only_in_case(root: Path) -> None:
    (root / "labels.csv").write_text("image,tags\na,dog\nb,Dog\nmy cat.2,cat\n")
    assert "labels.csv, line 3: 'Dog', but 'dog' in line 2: one class or two?" in _offenders(root)


@pytest.mark.parametrize("header", ["image;tags", "a.jpg,dog", "", "image,tags,set,extra"])
def test_other_headers_are_refused_with_an_example(root: Path, header: str) -> None:
    (root / "labels.csv").write_text(f"{header}\na.jpg,dog\n")
    with pytest.raises(UserError, match=r"labels\.csv, line 1(.|\n)*holiday_001"):
        build_index(FOLDER, root)


def test_missing_parts_are_named(tmp_path: Path, root: Path) -> None:
    (root / "labels.csv").write_bytes("image,tags\na.jpg,K\xe4fer\n".encode("latin1"))
    with pytest.raises(UserError, match="UTF-8"):
        build_index(FOLDER, root)
    (root / "labels.csv").unlink()
    with pytest.raises(UserError, match=r"no labels\.csv"):
        build_index(FOLDER, root)
    with pytest.raises(UserError, match="no folder images/"):
        build_index(FOLDER, root / "images")


def test_masks_are_checked_against_images(root: Path) -> None:
    index = build_index(FOLDER, root)
    assert build_masks(FOLDER, root, index) == {}
    (root / "masks").mkdir()
    good = np.array([[0, 1, 2, 255, 0, 0, 0, 0]] * 6, np.uint8)
    write_label(root / "masks/a.png", good)
    assert build_masks(FOLDER, root, index) == {"a": "masks/a.png"}
    write_label(root / "masks/b.png", good + (good == 2))
    write_label(root / "masks/my cat.png", good)
    Image.fromarray(good).save(root / "masks/my cat.2.jpg")
    with pytest.raises(UserError) as caught:
        build_masks(FOLDER, root, index)
    for expected in (
        "masks/b.png: it holds 3, but labels are 0..2 and 255",
        "masks/my cat.png: no image has this name; did you mean 'my cat.2'?",
        "masks/my cat.2.jpg: masks are PNG files",
    ):
        assert expected in caught.value.found


def test_fingerprints(root: Path) -> None:
    seen = {listing_fingerprint(FOLDER, root)}
    masks = mask_fingerprint(FOLDER, root)
    (root / "masks").mkdir()
    write_label(root / "masks/a.png", np.zeros((6, 8), np.uint8))
    for path in root.rglob("*"):
        os.utime(path, (1, 1))
    assert listing_fingerprint(FOLDER, root) in seen
    assert mask_fingerprint(FOLDER, root) != masks

    def add_image() -> None:
        Image.new("RGB", (8, 6)).save(root / "images/new.png")

    changes = (
        add_image,
        lambda: (root / "classes.txt").write_text("dog\ncat\n"),
        lambda: (root / "labels.csv").write_text("image,tags\na,dog\n"),
    )
    for change in changes:
        change()
        assert listing_fingerprint(FOLDER, root) not in seen
        seen.add(listing_fingerprint(FOLDER, root))


def test_demo_fingerprint_needs_no_data(tmp_path: Path) -> None:
    demo = DemoSettings()
    there = listing_fingerprint(demo, tmp_path), mask_fingerprint(demo, tmp_path)
    nowhere = tmp_path / "not yet"
    assert there == (listing_fingerprint(demo, nowhere), mask_fingerprint(demo, nowhere))


def test_sets_that_a_run_needs_are_asked_for_at_the_start(tmp_path):
    from conftest import write_tiny_data

    from wsss.data.indexing import make_index

    write_tiny_data(tmp_path / "data", train=3, val=0)
    how = {"config": FolderSettings(), "root": tmp_path / "data"}
    with pytest.raises(UserError, match="no image is in the set 'val'"):
        make_index(**how, output=tmp_path / "index.csv", sets=["train", "val"])
    assert not (tmp_path / "index.csv").exists()
    make_index(**how, output=tmp_path / "index.csv", sets=["train"])
    assert (tmp_path / "index.csv").is_file()
