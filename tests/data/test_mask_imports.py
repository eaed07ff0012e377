"""Masks that other tools hold become masks of ours, label by label, or nothing is written."""

from __future__ import annotations

import io
import json
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
from export_helpers import CLASSES, make_labels, python_with, run_script
from PIL import Image, ImageDraw

from wsss.data.exports.label_studio import brush_rle
from wsss.data.exports.registry import export_labels
from wsss.data.images import read_label, write_label
from wsss.data.imports.drawn import Files
from wsss.data.imports.label_studio import unpacked_rle
from wsss.data.imports.masks import Choices, Pictures, import_masks
from wsss.data.imports.registry import read_drawing
from wsss.data.index import ImageRecord, Index
from wsss.errors import UserError

SUFFIXES = {"coco": ".json", "cvat": ".zip", "label-studio": ".json", "voc": "", "png": ""}


@pytest.fixture
def labels(tmp_path):
    """Exportable maps, and a data root without masks."""
    (tmp_path / "root").mkdir()
    return make_labels(tmp_path)


def index_of(labels):
    return Index(labels.classes, tuple(labels.records))


def take(source, labels, tmp_path, **choices):
    drawing = read_drawing(source, labels.classes)
    return import_masks(drawing, index_of(labels), tmp_path / "root", Choices(**choices))


def submitted(path: Path) -> Path:
    """Label Studio's export of tasks whose predictions were submitted as they were."""
    tasks = json.loads(path.read_text())
    for task in tasks:
        result = task.pop("predictions")[0]["result"]
        old = {"id": 1, "updated_at": "2026-01-01", "result": []}
        task["annotations"] = [old, {"id": 2, "updated_at": "2026-01-02", "result": result}]
    path.write_text(json.dumps(tasks))
    return path


def test_of_several_voc_folders_none_is_guessed(labels, tmp_path):
    export_labels(labels[0], "voc", tmp_path / "both/one")
    export_labels(labels[0], "voc", tmp_path / "both/another")
    with pytest.raises(UserError, match="in another/, one/"):
        read_drawing(tmp_path / "both", CLASSES)
    assert len(read_drawing(tmp_path / "both/one", CLASSES).masks) == 4


@pytest.mark.parametrize("name", sorted(SUFFIXES))
def test_what_is_exported_comes_back(labels, tmp_path, name):
    exported, maps = labels
    source = tmp_path / f"exported{SUFFIXES[name]}"
    export_labels(exported, name, source)
    if name == "label-studio":
        submitted(source)
    # With the labels that were exported at hand, even what a tool cannot keep is back.
    drafts = [tmp_path / "labels"]
    report = take(source, exported, tmp_path, drafts=drafts, take_unchanged=True)
    drawn = {key for key, label in maps.items() if ((label > 0) & (label < 255)).any()}
    # Of the one without classes: no tags, so nothing is missing in it; COCO lists no objects of it.
    expected = set(maps) if name in ("cvat", "voc", "png") else drawn
    assert set(report.written) == expected
    for key in expected:
        assert np.array_equal(read_label(tmp_path / f"root/masks/{key}.png"), maps[key])
    unsure = {key for key in expected if (maps[key] == 255).any()}
    assert set() < unsure < expected
    assert set(report.restored) == (unsure if name in ("cvat", "label-studio") else set())
    again = take(source, exported, tmp_path, drafts=drafts, take_unchanged=True)
    assert set(again.kept) == expected and not again.written


def test_unsure_pixels_may_become_background(labels, tmp_path):
    exported, maps = labels
    export_labels(exported, "cvat", tmp_path / "a.zip")
    choices = {"drafts": [tmp_path / "labels"], "take_unchanged": True}
    take(tmp_path / "a.zip", exported, tmp_path, unsure_is_background=True, **choices)
    found = read_label(tmp_path / "root/masks/blotches.png")
    assert np.array_equal(found, np.where(maps["blotches"] == 255, 0, maps["blotches"]))


def test_only_what_was_changed_is_taken(labels, tmp_path):
    exported, maps = labels
    export_labels(exported, "voc", tmp_path / "voc")
    changed = maps["row"].copy()
    changed[:, :10] = 3
    write_label(tmp_path / "voc/SegmentationClass/row.png", changed)
    write_label(tmp_path / "voc/SegmentationClass/blotches.png", np.zeros_like(maps["blotches"]))
    write_label(tmp_path / "voc/SegmentationClass/other.png", changed)
    report = take(tmp_path / "voc", exported, tmp_path, drafts=[tmp_path / "labels"])
    assert (report.written, report.empty) == (["row"], ["blotches"])
    assert (report.unchanged, report.unknown) == (["empty", "speckles"], ["other"])
    assert [path.name for path in (tmp_path / "root/masks").iterdir()] == ["row.png"]


def test_masks_of_others_stay(labels, tmp_path):
    exported, maps = labels
    export_labels(exported, "png", tmp_path / "png")
    take(tmp_path / "png", exported, tmp_path)
    target = tmp_path / "root/masks/row.png"
    first = target.read_bytes()
    changed = maps["row"].copy()
    changed[:, :10] = 3
    write_label(tmp_path / "png/masks/row.png", changed)
    # What was imported and is as it was then may be imported anew.
    assert take(tmp_path / "png", exported, tmp_path).written == ["row"]
    assert np.array_equal(read_label(target), changed)
    # Changed by somebody, even by a program that keeps the texts of a PNG.
    with Image.open(io.BytesIO(first)) as image:
        info = image.info
    from PIL.PngImagePlugin import PngInfo

    texts = PngInfo()
    for key, text in info.items():
        if isinstance(text, str):
            texts.add_text(key, text)
    mine = maps["row"].copy()
    mine[:, :20] = 2
    write_label(target, mine, texts)
    before = target.read_bytes()
    write_label(tmp_path / "png/masks/speckles.png", np.flipud(maps["speckles"]).copy())
    speckles = (tmp_path / "root/masks/speckles.png").read_bytes()
    with pytest.raises(UserError, match=r"masks/row\.png: it was not imported, or was changed"):
        take(tmp_path / "png", exported, tmp_path)
    assert target.read_bytes() == before
    assert (tmp_path / "root/masks/speckles.png").read_bytes() == speckles, "all or nothing"
    report = take(tmp_path / "png", exported, tmp_path, overwrite=True)
    assert sorted(report.written) == ["row", "speckles"]


def test_classes_are_matched_by_name(tmp_path):
    record = ImageRecord("a", ("train",), ("cat", "ant"), 4, 2, "sub/a.jpg")
    index = Index(("cat", "ant"), (record,))
    (tmp_path / "in/masks").mkdir(parents=True)
    write_label(tmp_path / "in/masks/a.png", np.array([[0, 1, 2, 255]] * 2, np.uint8))
    (tmp_path / "in/classes.txt").write_text("ant\ncat\ndog\n")
    drawing = read_drawing(tmp_path / "in", index.classes)
    import_masks(drawing, index, tmp_path, Choices())
    assert read_label(tmp_path / "masks/a.png").tolist() == [[0, 2, 1, 255]] * 2
    (tmp_path / "in/classes.txt").write_text("ant\ncats\n")
    drawing = read_drawing(tmp_path / "in", index.classes)
    with pytest.raises(UserError, match=r"'cats', which the run has not; did you mean 'cat'\?"):
        import_masks(drawing, index, tmp_path, Choices(overwrite=True))
    # Numbers without names are held against the tags.
    (tmp_path / "in/classes.txt").unlink()
    one = Index(("cat", "ant"), (ImageRecord("a", ("train",), ("cat",), 4, 2, "a.jpg"),))
    write_label(tmp_path / "in/masks/a.png", np.full((2, 4), 2, np.uint8))
    with pytest.raises(UserError, match="contradict the tags"):
        import_masks(
            read_drawing(tmp_path / "in", one.classes), one, tmp_path, Choices(overwrite=True)
        )


def test_another_size_is_refused(labels, tmp_path):
    exported, maps = labels
    export_labels(exported, "png", tmp_path / "png")
    write_label(tmp_path / "png/masks/row.png", maps["row"][:, :-1].copy())
    with pytest.raises(UserError, match=r"it is 399 x 1 px, images/row\.jpg is 400 x 1"):
        take(tmp_path / "png", exported, tmp_path)
    assert not (tmp_path / "root/masks").exists()


def test_cvats_own_colours_and_paths(tmp_path):
    records = [ImageRecord(f"d__{i}", ("train",), ("cat",), 3, 2, f"d/{i}.jpg") for i in (1, 11)]
    index = Index(("ant", "cat"), tuple(records))
    picture = np.zeros((2, 3, 3), np.uint8)
    picture[0], picture[1, 2] = (61, 61, 245), (1, 2, 3)
    with zipfile.ZipFile(tmp_path / "cvat.zip", "w") as archive:
        archive.writestr(
            "labelmap.txt",
            "# label:color_rgb:parts:actions\nbackground:0,0,0::\ncat:61,61,245::\nant:1,2,3::\n"
            "unused:9,9,9::\n",
        )
        file = io.BytesIO()
        Image.fromarray(picture).save(file, "PNG")
        archive.writestr("SegmentationClass/d/1.png", file.getvalue())
    report = import_masks(
        read_drawing(tmp_path / "cvat.zip", index.classes), index, tmp_path, Choices()
    )
    assert report.written == ["d__1"]
    assert read_label(tmp_path / "masks/d__1.png").tolist() == [[2, 2, 2], [0, 0, 1]]


def test_coco_polygons_and_plain_runs_and_crowds(tmp_path):
    record = ImageRecord("a", ("train",), ("cat",), 6, 4, "a.jpg")
    index = Index(("ant", "cat"), (record,))
    square = [1, 1, 3, 1, 3, 3, 1, 3]
    # Column by column: 20 of 24 pixels off, then the last column on.
    runs = {"size": [4, 6], "counts": [20, 4]}
    common = {"image_id": 5, "iscrowd": 0, "category_id": 9}
    document = {
        "images": [{"id": 5, "file_name": "x/a.jpg", "height": 4, "width": 6}],
        "categories": [{"id": 9, "name": "cat"}, {"id": 1, "name": "horse"}],
        "annotations": [
            {"id": 1, "segmentation": [square], **common},
            {"id": 2, "segmentation": runs, **common, "iscrowd": 1},
            {"id": 3, "segmentation": [], "bbox": [0, 0, 1, 1], **common},
        ],
    }
    (tmp_path / "a.json").write_text(json.dumps(document))
    drawing = read_drawing(tmp_path / "a.json", index.classes)
    assert "boxes without an outline" in drawing.notes[0]
    import_masks(drawing, index, tmp_path, Choices())
    expected = np.zeros((4, 6), np.uint8)
    expected[1:3, 1:3], expected[:, 5] = 2, 255
    assert np.array_equal(read_label(tmp_path / "masks/a.png"), expected)
    document["annotations"][0]["category_id"] = 1
    (tmp_path / "a.json").write_text(json.dumps(document))
    with pytest.raises(UserError, match="'horse', which the run has not"):
        import_masks(read_drawing(tmp_path / "a.json", index.classes), index, tmp_path, Choices())


def test_label_studios_polygons_addresses_and_what_is_not_submitted(tmp_path):
    record = ImageRecord("a", ("train",), ("cat",), 40, 20, "a.jpg")
    index = Index(("ant", "cat"), (record,))
    points = [[25, 0], [75, 0], [75, 50], [25, 50]]
    region = {
        "type": "polygonlabels",
        "original_width": 40,
        "original_height": 20,
        "value": {"points": points, "polygonlabels": ["cat"]},
    }
    tasks = [
        {
            "data": {"image": "/data/upload/3/0123abcd-a.jpg"},
            "annotations": [
                {"id": 1, "result": [region], "was_cancelled": False},
                {"id": 2, "result": [], "was_cancelled": True},
            ],
        },
        {"data": {"image": "/data/local-files/?d=x/b.jpg"}, "annotations": []},
    ]
    (tmp_path / "tasks.json").write_text(json.dumps(tasks))
    drawing = read_drawing(tmp_path / "tasks.json", index.classes)
    assert drawing.notes == ["left out, not submitted: 1 (x/b.jpg)"]
    import_masks(drawing, index, tmp_path, Choices())
    found = read_label(tmp_path / "masks/a.png")
    assert (found[:9, 11:29] == 2).all() and (found == 2).sum() <= 22 * 12
    assert (found[12:] == 0).all() and (found[:, :9] == 0).all() and (found[:, 32:] == 0).all()


def test_words_that_do_not_repeat_are_read():
    # One block of three words, 7, 8 and 9, length 3 in 3 bits; then a run of five 255.
    bits = f"{8:032b}{7:05b}" + "".join(f"{size - 1:04b}" for size in (3, 4, 8, 16))
    bits += "0" + "00" + f"{2:03b}" + "".join(f"{value:08b}" for value in (7, 8, 9))
    bits += "1" + "01" + f"{4:04b}" + f"{255:08b}"
    packed = [int(bits[i : i + 8].ljust(8, "0"), 2) for i in range(0, len(bits), 8)]
    assert unpacked_rle(packed).tolist() == [7, 8, 9, *[255] * 5]
    with pytest.raises(ValueError, match="too early"):
        unpacked_rle(packed[:10])
    mask = np.random.default_rng(0).random((31, 40)) > 0.5
    assert np.array_equal(unpacked_rle(brush_rle(mask)), np.repeat(mask.ravel(), 4) * np.uint8(255))


def test_pictures_are_found_by_name_and_path_and_never_guessed():
    paths = {"a__1": "a/1.jpg", "b__1": "b/1.jpg", "b__2": "b/2.jpg"}
    records = [ImageRecord(name, (), (), 1, 1, path) for name, path in paths.items()]
    pictures = Pictures(records)

    def names(text):
        return [record.name for record in pictures.find(text)]

    assert names("a__1") == names("a/1") == names("/data/x/a/1.jpg") == ["a__1"]
    assert names("2") == names("elsewhere/2.png") == ["b__2"]
    assert names("1") == ["a__1", "b__1"] and names("3") == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"a": 1}', "neither COCO's nor Label Studio's"),
        ("no", "this is not JSON"),
        ('[{"image": "a.jpg", "tag": []}]', "JSON-MIN"),
        ('{"images": [{}], "annotations": [], "categories": []}', "its images has no id"),
    ],
)
def test_what_is_no_masks_is_said_so(tmp_path, content, message):
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(UserError, match=message):
        read_drawing(tmp_path / "a.json", CLASSES)


def test_other_files_and_folders_are_refused(tmp_path):
    (tmp_path / "b.zip").write_bytes(b"no zip")
    (tmp_path / "c.tif").write_bytes(b"")
    for name in ("b.zip", "c.tif", "none.json", "."):
        with pytest.raises(UserError):
            read_drawing(tmp_path / name, CLASSES)


def test_a_member_without_a_name_is_no_file(labels, tmp_path):
    source = tmp_path / "exported.zip"
    with zipfile.ZipFile(source, "w") as archive:
        for name in ("", "folder/", "a.png"):
            archive.writestr(zipfile.ZipInfo(name), b"")
    assert Files(source).names == ("a.png",)


def test_a_folder_that_cannot_be_read_is_not_passed_over(labels, tmp_path, monkeypatch):
    source = tmp_path / "exported"
    export_labels(labels[0], "png", source)
    (source / "locked").mkdir()
    real = os.scandir

    def refusing(path):
        if Path(path).name == "locked":
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", refusing)
    with pytest.raises(UserError, match="cannot read this folder: Permission denied") as refused:
        read_drawing(source, CLASSES)
    assert "locked" in str(refused.value)


@pytest.mark.slow
def test_label_studios_own_run_lengths(tmp_path):
    python = python_with("label-studio-sdk", tmp_path)
    mask = np.zeros((37, 53), np.uint8)
    drawn = Image.fromarray(mask)
    ImageDraw.Draw(drawn).ellipse((5, 4, 40, 30), fill=255)
    drawn.save(tmp_path / "mask.png")
    script = """
import json, sys
import numpy as np
from PIL import Image
from label_studio_sdk.converter.brush import mask2rle
print(json.dumps(mask2rle(np.array(Image.open(sys.argv[1])))))
"""
    packed = json.loads(run_script(python, script, str(tmp_path / "mask.png")))
    found = unpacked_rle(packed).reshape(37, 53, 4)[..., 3]
    assert np.array_equal(found >= 128, np.array(drawn) > 0)


@pytest.mark.slow
def test_what_datumaro_writes_for_cvat(tmp_path):
    # CVAT writes its "Segmentation mask 1.1" by datumaro, in this way, with colours of its own.
    python = python_with("datumaro", tmp_path)
    script = """
import json, sys
import numpy as np
from datumaro.components.annotation import AnnotationType, LabelCategories, Mask
from datumaro.components.dataset import Dataset
from datumaro.components.dataset_base import DatasetItem
from datumaro.components.media import Image
label = np.array(json.loads(sys.argv[2]))
masks = [Mask(label == value, label=value, group=value, id=value) for value in (1, 2)]
picture = Image.from_numpy(data=np.zeros((*label.shape, 3), np.uint8))
data = Dataset.from_iterable(
    [DatasetItem(id="sub/a", subset="train", media=picture, annotations=masks)],
    categories=["background", "cat", "dog"],
)
colours = {"background": [(0, 0, 0), [], []], "cat": [(61, 61, 245), [], []],
           "dog": [(9, 200, 30), [], []]}
data.export(sys.argv[1], "voc_segmentation", save_media=False, apply_colormap=True,
            label_map=colours)
"""
    label = [[1, 1, 0, 2], [0, 0, 2, 2]]
    run_script(python, script, str(tmp_path / "out"), json.dumps(label))
    with zipfile.ZipFile(tmp_path / "cvat.zip", "w") as archive:
        for path in sorted((tmp_path / "out").rglob("*.*")):
            archive.write(path, path.relative_to(tmp_path / "out").as_posix())
    index = Index(
        ("dog", "cat"), (ImageRecord("sub__a", ("train",), ("cat", "dog"), 4, 2, "sub/a.jpg"),)
    )
    import_masks(read_drawing(tmp_path / "cvat.zip", index.classes), index, tmp_path, Choices())
    found = read_label(tmp_path / "masks/sub__a.png")
    # The run has the classes in the other order.
    assert found.tolist() == [[2, 2, 0, 1], [0, 0, 1, 1]]


def test_a_mask_is_there_however_its_suffix_is_spelt(labels, tmp_path):
    exported, maps = labels
    export_labels(exported, "png", tmp_path / "png")
    drawn = tmp_path / "root/masks/row.PNG"
    drawn.parent.mkdir()
    mine = maps["row"].copy()
    mine[:, :20] = 2
    with drawn.open("wb") as file:
        write_label(file, mine)
    with pytest.raises(UserError, match=r"masks/row\.PNG: it was not imported"):
        take(tmp_path / "png", exported, tmp_path)
    assert np.array_equal(read_label(drawn), mine)
    take(tmp_path / "png", exported, tmp_path, overwrite=True)
    assert np.array_equal(read_label(drawn), maps["row"])
    assert not drawn.with_suffix(".png").exists()
