"""Other people's layouts: what is read from each, what is left out, and what `wsss init` sees."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import write_tiny_data
from layout_helpers import TAGS, found, picture, read, write_pictures

from wsss.commands.init import recognised
from wsss.data.build import build_index, build_masks, listing_fingerprint, mask_fingerprint
from wsss.data.formats.coco_json import CocoJsonSettings, list_coco_json
from wsss.data.formats.registry import FORMATS
from wsss.data.images import probe_image, read_image, write_label
from wsss.errors import UserError


def one_hot(root: Path, order: list[str]) -> Path:
    classes = ["sea", "dog", "car"]
    with open(root / "truth.csv", "w", newline="") as handle:
        writer = csv.writer(handle)
        writer.writerow(["filename", *classes, "photographer"])
        for file in order:
            hot = [int(name in TAGS[file]) for name in classes]
            writer.writerow([file, *hot, "me"])
    return root


def json_lines(root: Path, order: list[str]) -> Path:
    lines = [json.dumps({"file_name": file, "labels": TAGS[file]}) for file in order]
    (root / "meta.jsonl").write_text("\n".join(lines) + "\n")
    return root


def json_list(root: Path, order: list[str]) -> Path:
    values = [{"image": f"C:\\photos\\{file}", "tags": ";".join(TAGS[file])} for file in order]
    (root / "list.json").write_text(json.dumps(values))
    return root


def json_mapping(root: Path, order: list[str]) -> Path:
    (root / "list.json").write_text(json.dumps({file: list(TAGS[file]) for file in order}))
    return root


def several_columns(root: Path, order: list[str]) -> Path:
    lines = ["image;label_1;label_2"]
    lines += [f"{file};{';'.join([*TAGS[file], ''][:2])}" for file in order]
    (root / "labels.csv").write_text("\n".join(lines) + "\n")
    return root


def coco(root: Path, order: list[str]) -> Path:
    ids = {"dog": 7, "car": 3, "sea": 90}
    values = {
        "images": [
            {"id": f"i{i}", "file_name": file, "width": 1, "height": 1}
            for i, file in enumerate(order)
        ],
        "annotations": [
            {"id": 10 * i + j, "image_id": f"i{i}", "category_id": ids[tag], "bbox": [0, 0, 2, 2]}
            for i, file in enumerate(order)
            for j, tag in enumerate(TAGS[file])
        ],
        "categories": [{"id": number, "name": name} for name, number in ids.items()],
    }
    (root / "export").mkdir()
    (root / "export" / "result.json").write_text(json.dumps(values))
    return root


WRITERS = [one_hot, json_lines, json_list, json_mapping, several_columns, coco]


@pytest.mark.setting("index.format", "index.file", "index.train_file")
@pytest.mark.parametrize("write", WRITERS, ids=lambda write: write.__name__)
def test_a_layout_is_recognised_and_read(tmp_path, write, capsys):
    write(write_pictures(tmp_path), list(TAGS))
    picture(tmp_path / "town" / "new.jpg", 99)
    settings, index = read(tmp_path)
    assert found(index) == {
        file: tuple(name for name in index.classes if name in tags) for file, tags in TAGS.items()
    }
    assert set(index.classes) == {"car", "dog", "sea"}
    assert {record.name for record in index.records} == {
        *("beach__a", "beach__b", "town__c", "town__d", "e", "town__a")
    }
    assert all((record.width, record.height) == (9, 6) for record in index.records)
    printed = capsys.readouterr().out
    assert "town/new.jpg" in printed
    assert ("photographer" in printed) == (write is one_hot)
    assert index.sets == ("train",)
    assert build_masks(settings, tmp_path, index) == {}
    (tmp_path / "masks").mkdir()
    dog = index.classes.index("dog") + 1
    write_label(tmp_path / "masks" / "town__c.png", np.full((6, 9), dog, np.uint8))
    assert build_masks(settings, tmp_path, index) == {"town__c": "masks/town__c.png"}


@pytest.mark.parametrize("write", WRITERS, ids=lambda write: write.__name__)
def test_the_list_decides_the_fingerprint_and_masks_do_not(tmp_path, write):
    write(write_pictures(tmp_path), list(TAGS))
    settings, _ = read(tmp_path)
    before = listing_fingerprint(settings, tmp_path)
    masks = mask_fingerprint(settings, tmp_path)
    (tmp_path / "masks").mkdir()
    write_label(tmp_path / "masks" / "e.png", np.ones((6, 9), np.uint8))
    assert listing_fingerprint(settings, tmp_path) == before
    changed = mask_fingerprint(settings, tmp_path)
    write_label(tmp_path / "masks" / "e.png", np.zeros((6, 9), np.uint8))
    assert len({masks, changed, mask_fingerprint(settings, tmp_path)}) == 3
    picture(tmp_path / "other.jpg", 3)
    assert listing_fingerprint(settings, tmp_path) != before


def test_a_category_without_id_is_named_by_its_place(tmp_path):
    file = coco(tmp_path, list(TAGS)) / "export" / "result.json"
    values = json.loads(file.read_text())
    del values["categories"][1]["id"]
    file.write_text(json.dumps(values))
    with pytest.raises(UserError, match="entry 2 of its categories has no id") as refused:
        list_coco_json(CocoJsonSettings(train_file="export/result.json"), tmp_path)
    assert refused.value.where == str(file)


def test_classes_of_a_one_hot_table_keep_its_order(tmp_path):
    one_hot(write_pictures(tmp_path), list(TAGS))
    assert read(tmp_path)[1].classes == ("sea", "dog", "car")


def test_a_folder_a_class(tmp_path, capsys):
    for seed, file in enumerate(("cat/1.jpg", "cat/sub/2.jpg", "dog/1.jpg", "dog/3.png")):
        picture(tmp_path / file, seed)
    # One picture under two classes is one picture; another one of its name is not.
    (tmp_path / "hat").mkdir()
    shutil.copy(tmp_path / "cat" / "1.jpg", tmp_path / "hat" / "1.jpg")
    (tmp_path / "cat" / "notes.txt").write_text("x")
    picture(tmp_path / "loose.jpg", 9)
    _, index = read(tmp_path)
    assert found(index) == {
        **{"cat/1.jpg": ("cat", "hat"), "cat/sub/2.jpg": ("cat",)},
        **{"dog/1.jpg": ("dog",), "dog/3.png": ("dog",)},
    }
    printed = capsys.readouterr().out
    assert "cat/notes.txt" in printed and "loose.jpg" in printed


def test_folders_of_sets_above_the_classes(tmp_path):
    for seed, file in enumerate(("train/cat/1.jpg", "train/dog/2.jpg", "valid/dog/3.jpg")):
        picture(tmp_path / file, seed)
    _, index = read(tmp_path, val_share=0.5)
    assert {record.path: record.sets for record in index.records} == {
        "train/cat/1.jpg": ("train",),
        "train/dog/2.jpg": ("train",),
        "valid/dog/3.jpg": ("val",),
    }


@pytest.mark.setting("index.train_file", "index.val_file")
def test_coco_files_a_set(tmp_path):
    write_pictures(tmp_path)
    for name, order in (("train", list(TAGS)[:4]), ("valid", list(TAGS)[4:])):
        (tmp_path / name).mkdir()
        coco(tmp_path, order)
        shutil.move(tmp_path / "export" / "result.json", tmp_path / name / "_annotations.json")
        (tmp_path / "export").rmdir()
    _, index = read(tmp_path)
    assert {r.path for r in index.subset("val").records} == set(list(TAGS)[4:])
    assert index.classes == ("car", "dog", "sea")


@pytest.mark.setting("index.train_file", "index.val_file", "index.test_file")
def test_each_coco_file_is_the_set_that_the_settings_say(tmp_path):
    write_pictures(tmp_path)
    files, sets = list(TAGS), {}
    for start, name in ((0, "train"), (3, "val"), (5, "test")):
        sets[name] = files[start : {0: 3, 3: 5, 5: 6}[start]]
        coco(tmp_path, sets[name])
        shutil.move(tmp_path / "export" / "result.json", tmp_path / f"my_{name}.json")
        (tmp_path / "export").rmdir()
    values = {f"{name}_file": f"my_{name}.json" for name in sets}
    settings = FORMATS.parse({"format": "coco_json", **values}, where="index")
    index = build_index(settings, tmp_path)
    for name, paths in sets.items():
        assert [record.path for record in index.subset(name).records] == sorted(paths)


@pytest.mark.setting("index.val_share")
@pytest.mark.parametrize("write", WRITERS, ids=lambda write: write.__name__)
def test_every_layout_can_split_val_off(tmp_path, write):
    write(write_pictures(tmp_path), list(TAGS))
    of_share = {
        share: {record.path for record in read(tmp_path, val_share=share)[1].subset("val").records}
        for share in (0.3, 0.999)
    }
    # Which ones, their names decide; of a larger share they are more.
    assert 1 <= len(of_share[0.3]) < 5 == len(of_share[0.999])
    assert of_share[0.3] < of_share[0.999]


@pytest.mark.setting("index.val_share")
def test_val_is_split_off_by_name_and_stays(tmp_path):
    for i in range(60):
        picture(tmp_path / ("cat" if i % 2 else "dog") / f"{i:03d}.png", i)
    _, index = read(tmp_path, val_share=0.25)
    before = {record.name: record.sets for record in index.records}
    count = sum(sets == ("val",) for sets in before.values())
    assert 8 <= count <= 24
    for i in range(60, 70):
        picture(tmp_path / "cat" / f"{i:03d}.png", i)
    _, index = read(tmp_path, val_share=0.25)
    after = {record.name: record.sets for record in index.records}
    assert {name: after[name] for name in before} == before
    _, index = read(tmp_path, val_share=0.0)
    assert index.sets == ("train",)


def test_few_pictures_still_leave_some_for_both_sets(tmp_path):
    for seed, file in enumerate(("cat/1.jpg", "dog/2.jpg")):
        picture(tmp_path / file, seed)
    for share in (0.001, 0.999):
        assert read(tmp_path, val_share=share)[1].sets == ("train", "val")


def test_our_own_layout_and_voc_are_recognised(tmp_path):
    write_tiny_data(tmp_path / "own", train=4, val=0)
    assert recognised(tmp_path / "own") == {"format": "folder"}
    assert read(tmp_path / "own", val_share=0.3)[1].sets == ("train", "val")
    for name in ("JPEGImages", "ImageSets/Segmentation"):
        (tmp_path / "voc" / name).mkdir(parents=True)
    assert recognised(tmp_path / "voc") == {"format": "voc"}


def test_what_is_wrong_is_listed_with_its_place(tmp_path):
    write_pictures(tmp_path)
    text = "image,tags,set\ne.jpg,dog,train\ne.jpg,dog,train\na.jpg,sea,train\n"
    text += "town/d.jpg,car,someday\nbeach/b.jpg,mean;All,val\n"
    (tmp_path / "l.csv").write_text(text)
    settings = FORMATS.parse({"format": "table", "file": "l.csv"}, where="index")
    with pytest.raises(UserError) as caught:
        build_index(settings, tmp_path)
    for words in (
        "l.csv, line 3: e.jpg is listed twice, first in line 2",
        "l.csv, line 4: 'a.jpg' could be any of beach/a.jpg, town/a.jpg",
        "l.csv, line 5: 'someday' is none of train",
        "'mean' is reserved",
        "'All' is reserved",
    ):
        assert words in str(caught.value)


def refusal(root):
    with pytest.raises(UserError, match="no layout that is known") as caught:
        recognised(root)
    return caught.value.found


def test_a_folder_without_any_layout(tmp_path):
    assert refusal(tmp_path) == "this folder has no layout that is known"
    picture(tmp_path / "a.jpg", 1)
    assert "no list says what is in the pictures (1)" in refusal(tmp_path)


LINES = '{"image": "a.jpg", "tags": ["cat"]}\n{"image": "b.jpg", "ta'
COCO = '{"images": [{"id": 1, "file_name": "a.jpg"}], "annotations": [{"id"'
HALVES = {
    "annotations.json": (COCO.encode(), "annotations.json: this is not JSON: "),
    "part.json": (b'{"images": [], "categories": []}', "part.json: this is no COCO JSON"),
    "empty.json": (b"", "empty.json: this file is empty"),
    "list.json": (b'[{"image": "a.jpg", "tags": ["ca', "list.json: this is not JSON"),
    "list.jsonl": (LINES.encode(), "list.jsonl, line 2: this is not JSON"),
    "none.jsonl": (b"\n", "none.jsonl: this table lists no picture"),
    "latin.csv": (
        "image,tags\na.jpg,caf\u00e9\n".encode("latin1"),
        "latin.csv: this file is not UTF-8",
    ),
    "empty.csv": (b"", "empty.csv: this table has no rows"),
    "long.csv": (b"image,tags\n" + b"a" * 140_000, "long.csv, line 2: this is not a CSV file"),
    "other.csv": (b"image,tags\nx.jpg,cat\na.jpg,cat\n", "of the 2 pictures that it lists 1 are"),
    "labels.csv": (b"image,tags\na.jpg,cat\n", "there is no folder images/ here"),
    "images/b.jpg": (b"", "there is no labels.csv here"),
    "JPEGImages/b.jpg": (b"", "there is no ImageSets/Segmentation/ here"),
    "ImageSets/Segmentation/train.txt": (b"a", "there is no JPEGImages/ here"),
    "VOCdevkit/VOC2012/JPEGImages/b.jpg": (b"", "VOCdevkit/VOC2012 as the data root"),
    "annotations/instances_train2014.json": (b"{}", "no annotations/instances_val2014.json here"),
}


@pytest.mark.parametrize("file", HALVES)
def test_what_is_nearly_a_layout_says_what_is_missing(tmp_path, file):
    content, words = HALVES[file]
    picture(tmp_path / ("a.jpg" if file != "labels.csv" else "elsewhere/c.jpg"), 1)
    (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / file).write_bytes(content)
    found = refusal(tmp_path)
    assert words in found and "no list says" not in found
    # One line a layout, none of them twice.
    lines = found.splitlines()[1:]
    assert len({line.partition(": ")[2] for line in lines}) == len(lines)


def test_several_lists_are_named(tmp_path):
    picture(tmp_path / "a.jpg", 1)
    for name in ("one.csv", "two.csv"):
        (tmp_path / name).write_text("image,tags\na.jpg,cat\n")
    assert "several tables of these pictures: one.csv, two.csv" in refusal(tmp_path)
    for name in ("one", "two"):
        (tmp_path / f"{name}.csv").unlink()
        (tmp_path / f"{name}.json").write_text(
            '{"images": [], "annotations": [], "categories": []}'
        )
    assert "files with COCO JSON: one.json, two.json; their names do not say" in refusal(tmp_path)
    (tmp_path / "two.json").unlink()
    (tmp_path / "one.json").rename(tmp_path / "instances_val2014.json")
    assert "files with COCO JSON: instances_val2014.json; their names" in refusal(tmp_path)
    # Whatever an empty file was to be, beside a sound list it is none.
    (tmp_path / "instances_val2014.json").rename(tmp_path / "all.json")
    (tmp_path / "notes.json").touch()
    assert recognised(tmp_path) == {"format": "coco_json", "train_file": "all.json"}


def test_a_broken_list_is_said_whatever_else_is_there(tmp_path, capsys):
    for seed, file in enumerate(("cat/1.jpg", "dog/2.jpg")):
        picture(tmp_path / file, seed)
    (tmp_path / "list.csv").write_bytes(b"image,tags\ncat/1.jpg,k\xe4fer\n")
    assert recognised(tmp_path) == {"format": "class_folders"}
    assert "list.csv" in capsys.readouterr().out
    # Folders are no classes where a list of COCO's or the parts of a VOC devkit were meant.
    (tmp_path / "annotations.json").write_text(COCO)
    said = refusal(tmp_path)
    assert "annotations.json: this is not JSON" in said and "as class_folders" in said
    (tmp_path / "good.csv").write_text("image,tags\ncat/1.jpg,cat\ndog/2.jpg,dog\n")
    (tmp_path / "list.csv").unlink()
    assert recognised(tmp_path)["file"] == "good.csv"
    assert "annotations.json: this is not JSON" in capsys.readouterr().out


def test_a_devkit_without_its_lists_is_no_folder_of_classes(tmp_path):
    for seed, file in enumerate(("JPEGImages/1.jpg", "SegmentationClass/1.png")):
        picture(tmp_path / file, seed)
    assert "ImageSets" in refusal(tmp_path)


def test_heic_pictures_are_read(tmp_path):
    heif = pytest.importorskip("pillow_heif", reason="pillow-heif is not installed")
    values = np.zeros((32, 48, 3), np.uint8)
    values[:, :24] = (250, 10, 10)
    image = heif.from_bytes(mode="RGB", size=(48, 32), data=values.tobytes())
    (tmp_path / "red").mkdir()
    image.save(tmp_path / "red" / "phone.HEIC", quality=95)
    picture(tmp_path / "blue" / "b.jpg", 1)
    assert probe_image(tmp_path / "red" / "phone.HEIC") == (48, 32)
    read_back = read_image(tmp_path / "red" / "phone.HEIC").astype(int)
    assert np.abs(read_back - values).mean() < 12
    assert "red/phone.HEIC" in found(read(tmp_path)[1])
