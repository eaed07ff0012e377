"""Folders, links, pipes and archives that are not what they should be."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from wsss.cam.imported_maps import ClassMaps
from wsss.data.build import build_index, build_masks
from wsss.data.fingerprints import folder_digest
from wsss.data.formats.class_folders import ClassFoldersSettings
from wsss.data.formats.coco import OVERLAP_RULE, find_coco_masks
from wsss.data.formats.folder import FolderSettings, find_folder_masks
from wsss.data.formats.pictures import files_below
from wsss.data.formats.voc import find_voc_masks
from wsss.data.imports.drawn import Files
from wsss.data.imports.registry import read_drawing
from wsss.data.index import ImageRecord, Index
from wsss.data.listing import FoundMasks
from wsss.errors import UserError
from wsss.runtime.stage_process import explained

LABELS = "image,tags\na.png,cat\nb.png,dog\n"
LABELMAP = b"# label:color_rgb\nbackground:0,0,0::\ncat:128,0,0::\n"
RECORD = ImageRecord("a", ("train",), ("cat",), 9, 6, "a.png")


def to_itself(path: Path) -> None:
    path.symlink_to(path.name)


def to_nothing(path: Path) -> None:
    path.symlink_to("taken-away")


def folder_of(root: Path) -> Path:
    for name in ("a.png", "b.png"):
        (root / "images").mkdir(exist_ok=True)
        Image.new("RGB", (9, 6)).save(root / "images" / name)
    (root / "labels.csv").write_text(LABELS)
    return root


def read(root: Path) -> None:
    settings = FolderSettings()
    build_masks(settings, root, build_index(settings, root))


UNFIT: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "a class list that is a folder": ("classes.txt", Path.mkdir, "no file, but a folder"),
    "a class list that is a pipe": ("classes.txt", os.mkfifo, "no file, but a folder, a pipe"),
    "a class list that is gone": ("classes.txt", to_nothing, "leads to no file"),
    "a class list that is itself": ("classes.txt", to_itself, "leads to no file"),
    "masks that are a file": ("masks", Path.touch, "masks: this is no folder"),
    "masks that are gone": ("masks", to_nothing, "a link to one that is not there"),
    "a picture that is itself": ("images/c.png", to_itself, "not listed in labels.csv"),
}


@pytest.mark.parametrize("name", UNFIT)
def test_what_is_there_is_not_taken_for_absent(tmp_path: Path, name: str) -> None:
    read(folder_of(tmp_path))
    file, make, words = UNFIT[name]
    make(tmp_path / file)
    with pytest.raises(UserError, match=words):
        read(tmp_path)


def test_a_first_line_that_is_longer_than_csv_has_them(tmp_path: Path) -> None:
    (folder_of(tmp_path) / "labels.csv").write_text("x" * 200_000 + "\n" + LABELS)
    with pytest.raises(UserError, match="this is not a CSV file: field larger"):
        read(tmp_path)


def test_a_link_to_itself_hides_no_change_of_other_files(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"1")
    to_itself(tmp_path / "b.png")
    before = folder_digest(tmp_path)
    (tmp_path / "a.png").write_bytes(b"2")
    assert folder_digest(tmp_path) != before


def test_a_folder_that_vanishes_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.png").touch()
    real = os.walk

    def vanishing(*args: Any, **options: Any) -> Iterator[Any]:
        for found in real(*args, **options):
            if found[0].endswith("/a"):
                (tmp_path / "a/x.png").unlink()
                (tmp_path / "a").rmdir()
            yield found

    monkeypatch.setattr(os, "walk", vanishing)
    assert list(files_below(tmp_path)) == ["b/x.png"]


@pytest.mark.parametrize("of_disk", ["lost+found", "System Volume Information", "$RECYCLE.BIN"])
def test_a_folder_that_cannot_be_read_is_not_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, of_disk: str
) -> None:
    for name in ("cat", "dog", of_disk):
        (tmp_path / name).mkdir()
        Image.new("RGB", (9, 6)).save(tmp_path / name / f"{name}.png")
    real = os.scandir

    def refusing(path: str) -> Any:
        # The tests may run as an account that may read everything.
        if str(path).endswith(barred):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", refusing)
    barred = of_disk
    assert len(build_index(ClassFoldersSettings(), tmp_path).records) == 2
    barred = "dog"
    with pytest.raises(UserError, match="cannot read this folder: Permission denied") as refused:
        list(files_below(tmp_path))
    assert refused.value.where == str(tmp_path / "dog")


@pytest.mark.parametrize(
    "find", [find_folder_masks, find_voc_masks, find_coco_masks], ids=lambda find: find.__name__
)
def test_masks_that_cannot_be_read_are_not_taken_for_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, find: Callable[..., FoundMasks]
) -> None:
    index = Index(("cat",), [ImageRecord("a", ("train",), ("cat",), 9, 6, "train2014/a.png")])
    for folder in ("masks", "masks/train2014", "SegmentationClass"):
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / "a.png").touch()
    table = {"rule": OVERLAP_RULE, "classes": [{"name": "cat"}]}
    (tmp_path / "masks" / "categories.json").write_text(json.dumps(table))
    real = os.listdir

    def refusing(path: Any) -> Any:
        if Path(path) != tmp_path:
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "listdir", refusing)
    monkeypatch.setattr(os, "scandir", refusing)
    with pytest.raises(UserError, match="cannot read this folder: Permission denied"):
        find(None, tmp_path, index)
    with pytest.raises(UserError, match="cannot read this folder: Permission denied"):
        folder_digest(tmp_path / "masks")
    assert folder_digest(tmp_path / "nowhere") == folder_digest(tmp_path / "nothing")


def test_names_that_are_too_long_are_called_so(tmp_path: Path) -> None:
    for parts in (("cat", "q" * 130, "z" * 140 + ".png"), ("dog", "a.png")):
        path = tmp_path.joinpath(*parts)
        path.parent.mkdir(parents=True)
        Image.new("RGB", (9, 6)).save(path)
    with pytest.raises(UserError, match="longer than the name of a file can be"):
        build_index(ClassFoldersSettings(), tmp_path)


@pytest.mark.parametrize(
    ("name", "make", "words"),
    [
        ("a.json", Path.mkdir, "no masks of a kind that is known"),
        ("a.json", os.mkfifo, "no file, but a folder, a pipe"),
        ("a.zip", os.mkfifo, "no file, but a folder, a pipe"),
        ("a.json", to_itself, "leads to no file"),
        ("x" * 300 + ".json", lambda path: None, "File name too long"),
    ],
)
def test_what_holds_no_masks(
    tmp_path: Path, name: str, make: Callable[[Path], object], words: str
) -> None:
    make(tmp_path / name)
    with pytest.raises(UserError, match=words):
        read_drawing(tmp_path / name, ("cat",))


def zipped(path: Path, files: dict[str, bytes], how: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", how) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


@pytest.mark.parametrize("how", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_archives_that_are_damaged_inside(tmp_path: Path, how: int) -> None:
    content = np.random.default_rng(0).bytes(3000)
    path = zipped(tmp_path / "a.zip", {"a.png": content}, how)
    assert Files(path).read("a.png") == content
    data = bytearray(path.read_bytes())
    data[50:90] = bytes(255 - each for each in data[50:90])
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"a\.png in this zip cannot be read"):
        Files(path).read("a.png")


def test_an_archive_that_unpacks_to_more_than_masks_do(tmp_path: Path) -> None:
    path = zipped(tmp_path / "a.zip", {"a.png": bytes(120_000_000)})
    with pytest.raises(UserError, match=r"has 120 MB, packed into 0\.1 MB"):
        Files(path).read("a.png")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (LABELMAP.decode().encode("utf-16"), "not UTF-8 text"),
        (LABELMAP + "dog:²,2,3::\n".encode(), "the line 'dog:²"),
        (LABELMAP + b"dog:" + b"9" * 5000 + b",2,3::\n", "the line 'dog:9"),
    ],
)
def test_lists_of_colours_that_are_none(tmp_path: Path, content: bytes, words: str) -> None:
    files = {"labelmap.txt": content, "SegmentationClass/a.png": b""}
    with pytest.raises(UserError, match=words):
        read_drawing(zipped(tmp_path / "a.zip", files), ("cat", "dog"))


def test_byte_order_marks_belong_to_no_class(tmp_path: Path) -> None:
    (tmp_path / "png").mkdir()
    Image.fromarray(np.ones((6, 9), dtype=np.uint8)).save(tmp_path / "png/a.png")
    (tmp_path / "png/classes.txt").write_bytes(b"\xef\xbb\xbfcat\ndog\n")
    (mask,) = read_drawing(tmp_path / "png", ("cat", "dog")).masks
    assert set(np.unique(mask.read())) == {1}
    (tmp_path / "png/classes.txt").write_text("cat\ncat\n")
    with pytest.raises(UserError, match="'cat' stands twice in the list"):
        read_drawing(tmp_path / "png", ("cat", "dog"))
    files = {"labelmap.txt": b"\xef\xbb\xbf" + LABELMAP, "SegmentationClass/a.png": b""}
    assert len(read_drawing(zipped(tmp_path / "a.zip", files), ("cat",)).masks) == 1


def _header(shape: str) -> bytes:
    text = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00v\x00" + text.encode()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (_header("(99999999, 99999999)"), "this map has 99999999 x 99999999 px"),
        (_header("(6, 9)"), "cannot read this archive of maps"),
        (_header("((((("), "cannot read this archive of maps"),
        (b"", "cannot read this archive of maps"),
    ],
)
def test_archives_of_maps_are_measured_before_they_are_unpacked(
    tmp_path: Path, content: bytes, words: str
) -> None:
    zipped(tmp_path / "a.npz", {"cat.npy": content})
    with pytest.raises(UserError, match=words):
        ClassMaps(tmp_path, ("cat",)).read(RECORD, ("cat",))


def test_a_map_larger_than_any_picture(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    Image.fromarray(np.zeros((14_000, 14_000), dtype=np.uint8)).save(tmp_path / "a/cat.png")
    with pytest.raises(UserError, match="cannot read this map: Image size"):
        ClassMaps(tmp_path, ("cat",)).read(RECORD, ("cat",))


def test_paths_that_cannot_be_followed_are_explained() -> None:
    said = "this cannot be opened: "
    with pytest.raises(UserError, match=f"{said}File name too long"), explained("index"):
        Path("x" * 300).is_dir()
    with pytest.raises(UserError, match=f"{said}Permission denied"), explained("index"):
        raise PermissionError(13, "Permission denied", "there")
    # Of no path, it is not understood.
    with pytest.raises(PermissionError), explained("index"):
        raise PermissionError(13, "Permission denied")
