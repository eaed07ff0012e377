"""Exported labels are read back, by the tools they are for, pixel by pixel."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from dataclasses import replace
from io import BytesIO
from pathlib import Path, PurePosixPath
from xml.etree import ElementTree

import numpy as np
import pytest
from export_helpers import CLASSES, make_labels, python_with, run_script
from PIL import Image

from wsss.data.exports.label_studio import brush_rle, labelling_config
from wsss.data.exports.registry import EXPORTS, export_labels, unsure_share
from wsss.data.formats.coco import draw_labels
from wsss.data.images import read_label, voc_palette
from wsss.data.imports.masks import Pictures
from wsss.data.imports.registry import read_drawing
from wsss.errors import UserError


def without_unsure(label):
    return np.where(label == 255, 0, label)


@pytest.mark.filterwarnings("ignore:__array__ impl:DeprecationWarning")  # pycocotools 2.0.11
def test_coco_is_read_back_by_pycocotools_and_by_us(tmp_path):
    from pycocotools.coco import COCO

    labels, maps = make_labels(tmp_path)
    export_labels(labels, "coco", tmp_path / "labels.json")
    read = COCO(str(tmp_path / "labels.json"))
    assert [read.cats[i]["name"] for i in sorted(read.cats)] == list(CLASSES)
    assert len(read.imgs) == len(maps)
    for number, image in read.imgs.items():
        label = maps[image["file_name"].removeprefix("images/").removesuffix(".jpg")]
        assert (image["height"], image["width"]) == label.shape
        found = np.zeros_like(label)
        for annotation in read.imgToAnns[number]:
            mask = read.annToMask(annotation).astype(bool)
            assert annotation["area"] == mask.sum()
            found[mask] = 255 if annotation["iscrowd"] else annotation["category_id"]
        np.testing.assert_array_equal(found, label)
        values = {i: i for i in read.cats}
        ours = draw_labels(tuple(read.imgToAnns[number]), *label.shape, values)
        np.testing.assert_array_equal(ours, label)
    assert any(annotation["iscrowd"] for annotation in read.anns.values())


def test_cvat_zip_has_its_layout_and_colours(tmp_path):
    labels, maps = make_labels(tmp_path)
    export_labels(labels, "cvat", tmp_path / "labels.zip")
    with zipfile.ZipFile(tmp_path / "labels.zip") as archive:
        colours = {}
        for line in archive.read("labelmap.txt").decode().splitlines()[1:]:
            name, colour, _, _ = line.split(":")
            colours[tuple(int(part) for part in colour.split(","))] = name
        assert list(colours.values()) == ["background", *CLASSES]
        names = archive.read("ImageSets/Segmentation/default.txt").decode().split()
        assert names == sorted(maps)
        for name in names:
            with Image.open(BytesIO(archive.read(f"SegmentationClass/{name}.png"))) as image:
                picture = np.array(image.convert("RGB"))
            label = without_unsure(maps[name])
            for colour, class_name in colours.items():
                value = ["background", *CLASSES].index(class_name)
                np.testing.assert_array_equal((picture == colour).all(axis=2), label == value)
            extracted = archive.extract(f"SegmentationObject/{name}.png", tmp_path / "objects")
            objects = read_label(extracted)
            # An object is one class, and a class one object.
            pairs = set(zip(label.ravel().tolist(), objects.ravel().tolist(), strict=True))
            assert len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs})
    export_labels(labels, "cvat", tmp_path / "again.zip")
    assert (tmp_path / "again.zip").read_bytes() == (tmp_path / "labels.zip").read_bytes()


def in_subfolders(labels):
    """The same label maps, of pictures in a folder a class."""
    records = [
        replace(record, name=f"odd__{record.name}.v2", path=f"odd/{record.name}.v2.jpg")
        for record in labels.records
    ]
    files = {
        new.name: labels.files[old.name] for old, new in zip(labels.records, records, strict=True)
    }
    return replace(labels, records=records, files=files)


def cvat_finds(name, frames):
    """The frame that CVAT gives an item: the one whose path, without suffix, ends with its."""
    parts = PurePosixPath(name).parts
    return [
        frame
        for frame in frames
        if PurePosixPath(frame).with_suffix("").parts[-len(parts) :] == parts
    ]


@pytest.mark.parametrize("top", ["", "photos/"])
@pytest.mark.parametrize("subfolders", [False, True])
def test_cvat_finds_every_picture_by_the_names_in_the_zip(tmp_path, top, subfolders):
    labels, _ = make_labels(tmp_path)
    labels = in_subfolders(labels) if subfolders else labels
    export_labels(labels, "cvat", tmp_path / "labels.zip")
    frames = [f"{top}{record.path}" for record in labels.records]
    with zipfile.ZipFile(tmp_path / "labels.zip") as archive:
        names = archive.read("ImageSets/Segmentation/default.txt").decode().splitlines()
        assert {f"SegmentationObject/{name}.png" for name in names} <= set(archive.namelist())
        for name, frame, record in zip(names, frames, labels.records, strict=True):
            assert cvat_finds(name, frames) == [frame]
            mask = archive.extract(f"SegmentationClass/{name}.png", tmp_path / "unpacked")
            np.testing.assert_array_equal(read_label(mask), without_unsure(labels.read(record)))
    found = Pictures(labels.records)
    assert [found.find(name) for name in names] == [[record] for record in labels.records]


def test_voc_and_png_keep_every_label(tmp_path):
    labels, maps = make_labels(tmp_path)
    export_labels(labels, "voc", tmp_path / "voc")
    export_labels(labels, "png", tmp_path / "png")
    for name, label in maps.items():
        for folder in ("voc/SegmentationClass", "png/masks"):
            np.testing.assert_array_equal(read_label(tmp_path / folder / f"{name}.png"), label)
    assert (tmp_path / "png" / "classes.txt").read_text().splitlines() == list(CLASSES)
    sets = tmp_path / "voc" / "ImageSets" / "Segmentation"
    assert (sets / "val.txt").read_text() == "blotches\n"
    assert (sets / "train.txt").read_text().split() == ["empty", "row", "speckles"]
    with Image.open(tmp_path / "voc" / "SegmentationClass" / "row.png") as image:
        assert image.convert("RGB").getpixel((0, 0)) == tuple(voc_palette()[1].tolist())


def test_texts_are_utf8_whatever_the_locale_says(tmp_path):
    program = """
import sys, warnings
from pathlib import Path
from export_helpers import make_labels
from wsss.data.exports.registry import EXPORTS, export_labels

warnings.filterwarnings("error", category=EncodingWarning, module="wsss")
folder = Path(sys.argv[1])
labels, _ = make_labels(folder)
for name, export in EXPORTS.items():
    export_labels(labels, name, folder / f"{name}{export.suffix}")
"""
    done = subprocess.run(
        [sys.executable, "-X", "warn_default_encoding", "-c", program, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", ["a:b", "#a"])
@pytest.mark.parametrize("export", ["cvat", "voc"])
def test_a_class_that_no_labelmap_can_name_is_refused(tmp_path, name, export):
    labels, _ = make_labels(tmp_path)
    renamed = replace(labels, classes=(name, *CLASSES[1:]))
    with pytest.raises(UserError, match=name) as caught:
        export_labels(renamed, export, tmp_path / "out")
    assert caught.value.fix and not (tmp_path / "out").exists()


def test_nothing_is_written_over(tmp_path):
    labels, _ = make_labels(tmp_path)
    for name, export in EXPORTS.items():
        place = tmp_path / f"{name}{export.suffix}"
        place.write_text("mine")
        with pytest.raises(UserError, match="something here already"):
            export_labels(labels, name, place)
        assert place.read_text() == "mine"


def test_a_label_map_that_does_not_fit_leaves_nothing(tmp_path):
    labels, _ = make_labels(tmp_path)
    Image.new("L", (3, 3)).save(labels.files["row"])
    for name, export in EXPORTS.items():
        with pytest.raises(UserError, match="3 x 3 px"):
            export_labels(labels, name, tmp_path / f"out-{name}{export.suffix}")
    assert not list(tmp_path.glob("*out-*"))


def test_the_share_that_is_not_sure(tmp_path):
    labels, maps = make_labels(tmp_path)
    flat = np.concatenate([label.ravel() for label in maps.values()])
    assert unsure_share(labels) == pytest.approx((flat == 255).mean())


def test_the_labelling_interface_is_xml_with_all_classes():
    root = ElementTree.fromstring(labelling_config(CLASSES))
    assert [label.get("value") for label in root.iter("Label")] == list(CLASSES)


# ----- the tools themselves

LABEL_STUDIO = """
import json, sys
import numpy as np
from label_studio_sdk.converter.brush import decode_rle
for task in json.load(open(sys.argv[1])):
    for prediction in task["predictions"]:
        for region in prediction["result"]:
            height, width = region["original_height"], region["original_width"]
            values = decode_rle(region["value"]["rle"]).reshape(height, width, 4)
            assert (values == values[..., 3:]).all() and set(np.unique(values)) <= {0, 255}
            mask = (values[..., 3] > 0).astype(np.uint8).tolist()
            name = region["value"]["brushlabels"][0]
            print(json.dumps([task["data"]["name"], name, mask]))
"""


@pytest.mark.slow
def test_label_studio_decodes_the_same_pixels(tmp_path):
    labels, maps = make_labels(tmp_path)
    export_labels(labels, "label-studio", tmp_path / "tasks.json")
    python = python_with("label-studio-sdk", tmp_path)
    found = {name: np.zeros_like(label) for name, label in maps.items()}
    for line in run_script(python, LABEL_STUDIO, str(tmp_path / "tasks.json")).splitlines():
        name, class_name, mask = json.loads(line)
        found[name][np.array(mask, bool)] = CLASSES.index(class_name) + 1
    for name, label in maps.items():
        np.testing.assert_array_equal(found[name], without_unsure(label))


DATUMARO = """
import json, sys, zipfile
import numpy as np
from datumaro.components.dataset import Dataset
zipfile.ZipFile(sys.argv[1]).extractall(sys.argv[2])
data = Dataset.import_from(sys.argv[2], "voc_segmentation")
names = [label.name for label in data.categories()[next(
    kind for kind in data.categories() if kind.name == "label")].items]
for item in data:
    for annotation in item.annotations:
        mask = np.asarray(annotation.image).astype(np.uint8).tolist()
        print(json.dumps([item.id, names[annotation.label], mask]))
"""


@pytest.mark.slow
def test_datumaro_reads_the_cvat_zip(tmp_path):
    labels, maps = make_labels(tmp_path)
    export_labels(labels, "cvat", tmp_path / "labels.zip")
    python = python_with("datumaro", tmp_path)
    found = {name: np.zeros_like(label) for name, label in maps.items()}
    text = run_script(python, DATUMARO, str(tmp_path / "labels.zip"), str(tmp_path / "unpacked"))
    for line in text.splitlines():
        name, class_name, mask = json.loads(line)
        if class_name != "background":
            found[name][np.array(mask, bool)] = CLASSES.index(class_name) + 1
    for name, label in maps.items():
        np.testing.assert_array_equal(found[name], without_unsure(label))


def decoded(data, count):
    """The format, read bit by bit as its description has it."""
    bits, position, out = "".join(f"{byte:08b}" for byte in data), 0, []

    def take(number):
        nonlocal position
        position += number
        return int(bits[position - number : position], 2)

    assert take(32) == count
    word = take(5) + 1
    sizes = [take(4) + 1 for _ in range(4)]
    while len(out) < count:
        is_run = take(1)
        length = take(sizes[take(2)]) + 1
        out += [take(word)] * length if is_run else [take(word) for _ in range(length)]
    return np.array(out)


@pytest.mark.parametrize("shape", [(1, 1), (1, 2), (5, 13), (200, 180)])
def test_brush_runs_of_every_length(shape):
    rng = np.random.default_rng(1)
    for mask in (rng.random(shape) < 0.5, np.ones(shape, bool), np.zeros(shape, bool)):
        values = decoded(brush_rle(mask), 4 * mask.size).reshape(*shape, 4)
        for channel in range(4):
            np.testing.assert_array_equal(values[..., channel], np.where(mask, 255, 0))


def test_names_are_utf_8_whatever_the_machine_is_set_to(tmp_path):
    code = f"""
from dataclasses import replace
from pathlib import Path
from export_helpers import make_labels
from wsss.data.exports.registry import EXPORTS, export_labels

folder = Path({str(tmp_path)!r})
labels, _ = make_labels(folder)
labels = replace(labels, classes=("\\u00e4", "b", "c"))
for name in EXPORTS:
    export_labels(labels, name, folder / name)
"""
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **plain, "PYTHONPATH": path}, check=True
    )
    assert (tmp_path / "png" / "classes.txt").read_text(encoding="utf-8") == "\u00e4\nb\nc\n"


def test_a_zip_is_opened_once_however_many_masks_are_in_it(tmp_path, monkeypatch):
    source, opened = tmp_path / "labels.zip", []
    export_labels(make_labels(tmp_path)[0], "cvat", source)
    real = zipfile.ZipFile

    def counting(*given, **options):
        opened.append(given)
        return real(*given, **options)

    monkeypatch.setattr(zipfile, "ZipFile", counting)
    masks = read_drawing(source, CLASSES).masks
    assert len([mask.read() for mask in masks]) > 1 and len(opened) == 1
