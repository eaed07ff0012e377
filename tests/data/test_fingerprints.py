"""What makes lists and masks stale: every change of content, and nothing else."""

from __future__ import annotations

import builtins
import hashlib
import io
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from conftest import write_tiny_data
from PIL import Image

from wsss.data import digest_memory
from wsss.data.build import listing_fingerprint, mask_fingerprint
from wsss.data.digest_memory import DigestMemory, stamp_of
from wsss.data.fingerprints import (
    content_digest,
    file_digests,
    folder_digest,
    once,
    remembered,
)
from wsss.data.formats.registry import FORMATS, IndexSettings
from wsss.data.index import read_masks
from wsss.data.indexing import make_index, make_masks, training_mask_fingerprint
from wsss.errors import UserError
from wsss.runtime.names import Names


def bmp(path: Path, seed: int) -> None:
    """Write one of many pictures that all have the same number of bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(seed).integers(0, 255, (6, 9, 3), dtype=np.uint8)
    Image.fromarray(values).save(path, format="BMP")


def keeping_times(path: Path, change: Callable[[], object]) -> None:
    """Change a file in place, and put its time of modification back."""
    status = path.stat()
    change()
    assert path.stat().st_size == status.st_size
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def folder(root: Path) -> tuple[str, str, str]:
    bmp(root / "images" / "a.bmp", 0)
    (root / "labels.csv").write_text("image,tags\na,dog\n")
    bmp(root / "masks" / "a.png", 0)
    return "folder", "images/a.bmp", "masks/a.png"


def table(root: Path) -> tuple[str, str, str]:
    bmp(root / "some" / "a.bmp", 0)
    (root / "labels.csv").write_text("image,tags,by\na,dog,me\n")
    bmp(root / "masks" / "a.png", 0)
    return "table", "some/a.bmp", "masks/a.png"


def class_folders(root: Path) -> tuple[str, str, str]:
    bmp(root / "dog" / "a.bmp", 0)
    bmp(root / "masks" / "a.png", 0)
    return "class_folders", "dog/a.bmp", "masks/a.png"


def coco_json(root: Path) -> tuple[str, str, str]:
    bmp(root / "any" / "a.bmp", 0)
    (root / "annotations.json").write_text('{"images": [], "annotations": [], "categories": []}')
    bmp(root / "masks" / "a.png", 0)
    return "coco_json", "any/a.bmp", "masks/a.png"


def voc(root: Path) -> tuple[str, str, str]:
    bmp(root / "JPEGImages" / "a.jpg", 0)
    bmp(root / "JPEGImages" / "of_another_task.jpg", 0)
    (root / "ImageSets" / "Segmentation").mkdir(parents=True)
    (root / "ImageSets" / "Segmentation" / "train.txt").write_text("a\n")
    bmp(root / "SegmentationClass" / "a.png", 0)
    return "voc", "JPEGImages/a.jpg", "SegmentationClass/a.png"


def coco(root: Path) -> tuple[str, str, None]:
    bmp(root / "train2014" / "a.jpg", 0)
    (root / "annotations").mkdir()
    for name in ("train", "val"):
        (root / "annotations" / f"instances_{name}2014.json").write_text("{}")
    return "coco", "train2014/a.jpg", None


LAYOUTS = [folder, table, class_folders, coco_json, voc, coco]


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.__name__)
def test_an_edit_of_the_same_size_and_time_is_an_edit(tmp_path: Path, layout, monkeypatch) -> None:
    root, memory = tmp_path / "data", tmp_path / "memory"
    name, picture, mask = layout(root)
    settings: IndexSettings = FORMATS.parse({"format": name}, where="index")

    def both() -> tuple[str, str]:
        with remembered(memory, root):
            return listing_fingerprint(settings, root), mask_fingerprint(settings, root)

    # Long after the files were written, so that they are remembered.
    monkeypatch.setattr(digest_memory, "_SETTLED_S", -1.0)
    before = both()
    assert both() == before
    for path in root.rglob("*"):
        os.utime(path, (1, 1))
    assert both() == before
    keeping_times(root / picture, lambda: bmp(root / picture, 1))
    changed = both()
    assert changed[0] != before[0] and changed[1] == before[1]
    if mask is not None:
        keeping_times(root / mask, lambda: bmp(root / mask, 1))
        assert both()[0] == changed[0] and both()[1] != before[1]
    # Content alone counts: another copy of the same data is the same data.
    copy = tmp_path / "copy"
    shutil.copytree(root, copy)
    assert listing_fingerprint(settings, copy) == both()[0]


def test_masks_of_val_are_not_learnt_from(tmp_path: Path) -> None:
    write_tiny_data(tmp_path)
    settings: IndexSettings = FORMATS.parse({"format": "folder"}, where="index")
    masks = {number: tmp_path / "masks" / f"image_{number:02d}.png" for number in range(11)}
    content = masks[1].read_bytes()
    masks[9].unlink()
    masks[3].unlink()

    def learnt() -> str:
        return training_mask_fingerprint(settings, tmp_path, "mixed")

    before = {learnt()}
    masks[9].write_bytes(content)
    masks[10].write_bytes(content)
    assert {learnt()} == before
    for number, new in ((3, content), (1, masks[0].read_bytes())):
        masks[number].write_bytes(new)
        assert learnt() not in before
        before.add(learnt())
    masks[0].unlink()
    assert learnt() not in before
    # What is wrong with the list is said by the stage that reads it.
    (tmp_path / "labels.csv").write_text("picture\n")
    assert learnt() == mask_fingerprint(settings, tmp_path)


def test_masks_of_val_are_not_checked_for_a_training(tmp_path: Path) -> None:
    write_tiny_data(tmp_path / "data")
    settings: IndexSettings = FORMATS.parse({"format": "folder"}, where="index")
    index, output = tmp_path / "index.csv", tmp_path / "masks.csv"
    make_index(config=settings, root=tmp_path / "data", output=index)
    (tmp_path / "data/masks/image_09.png").write_bytes(b"no picture")
    how: dict[str, Any] = {"config": settings, "root": tmp_path / "data", "index": index}
    make_masks(**how, output=output, trained=True)
    assert set(read_masks(output)) == {f"image_{number:02d}" for number in range(8)}
    assert output.with_suffix(".sha256").read_text().count("\n") == 8
    with pytest.raises(UserError, match="image_09"):
        make_masks(**how, output=output)


def test_pictures_of_other_tasks_do_not_count(tmp_path: Path) -> None:
    voc(tmp_path)
    settings = FORMATS.parse({"format": "voc"}, where="index")
    before = listing_fingerprint(settings, tmp_path)
    bmp(tmp_path / "JPEGImages" / "of_another_task.jpg", 1)
    assert listing_fingerprint(settings, tmp_path) == before


def test_annotations_are_read_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "large.json"
    content = bytearray(9 << 20)
    path.write_bytes(content)
    before = content_digest(path)
    assert before == hashlib.sha256(content).hexdigest()
    content[4 << 20] = 1
    path.write_bytes(content)
    assert content_digest(path) != before


def test_nothing_is_opened_while_nothing_changed(tmp_path: Path, monkeypatch) -> None:
    root, memory = tmp_path / "data", tmp_path / "memory"
    files = [root / f"{number}.bmp" for number in range(12)]
    for number, path in enumerate(files):
        bmp(path, number)
    plain = [hashlib.sha256(path.read_bytes()).hexdigest() for path in files]
    monkeypatch.setattr(digest_memory, "_SETTLED_S", -1.0)
    with remembered(memory, root):
        assert file_digests(files) == plain
    opened: list[str] = []
    real = builtins.open

    def spy(path, *args, **kwargs):
        opened.append(str(path))
        return real(path, *args, **kwargs)

    monkeypatch.setattr(builtins, "open", spy)
    with remembered(memory, root):
        assert file_digests(files) == plain
    assert [name for name in opened if name.endswith(".bmp")] == []
    bmp(files[3], 99)
    with remembered(memory, root):
        assert file_digests(files) != plain
    assert [Path(name).name for name in opened if name.endswith(".bmp")].count("3.bmp") >= 1
    assert not any(name.endswith("4.bmp") for name in opened)


def test_a_file_that_was_just_written_is_not_remembered(tmp_path: Path) -> None:
    root, memory = tmp_path / "data", tmp_path / "memory"
    bmp(root / "a.bmp", 0)
    with remembered(memory, root):
        folder_digest(root)
    assert list(memory.glob("*")) == []
    old = time.time() - 3600
    os.utime(root / "a.bmp", (old, old))  # the inode's own time is that of now
    with remembered(memory, root):
        folder_digest(root)
    assert list(memory.glob("*")) == []


def _kept(file: Path, **changes: object) -> bytes:
    """Return a memory's file with other arrays in it."""
    with np.load(file) as stored:
        arrays = {key: np.asarray(value) for key, value in ({**stored} | changes).items()}
    changed = io.BytesIO()
    np.savez(changed, **arrays)
    return changed.getvalue()


def _central(file: Path, offset: int, value: bytes) -> bytes:
    """Return a memory's file with bytes of its first entry's record changed."""
    content = bytearray(file.read_bytes())
    start = content.index(b"PK\x01\x02") + offset
    content[start : start + len(value)] = value
    return bytes(content)


DAMAGES: list[Callable[[Path], bytes]] = [
    lambda file: b"",
    lambda file: b'{"version": 1, "files": {}, "passed": []}',
    lambda file: b"\x93NUMPY\x01\x00",
    lambda file: file.read_bytes()[:-40],
    lambda file: _kept(file, version=1),
    lambda file: _kept(file, ends=np.array([0, 99])),
    lambda file: _kept(file, ends=np.array([0.0, 5.0])),
    lambda file: _kept(file, entries=np.zeros(3, np.uint8)),
    lambda file: _kept(file, passed=[]).replace(b"passed", b"pasted"),
    lambda file: _central(file, 6, b"\xff\x00"),  # a version of ZIP that there is not
    lambda file: _central(file, 8, b"\x01"),  # encrypted
    lambda file: _central(file, 10, b"\x63"),  # compressed in no known way
]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_memory_is_none(
    tmp_path: Path, monkeypatch, damage: Callable[[Path], bytes]
) -> None:
    root, memory = tmp_path / "data", tmp_path / "memory"
    bmp(root / "a.bmp", 0)
    monkeypatch.setattr(digest_memory, "_SETTLED_S", -1.0)
    with remembered(memory, root):
        before = folder_digest(root)
    (file,) = memory.glob("*.npz")
    file.write_bytes(damage(file))
    with remembered(memory, root):
        assert folder_digest(root) == before
    with np.load(file) as stored:
        assert stored["text"].tobytes() == b"a.bmp" and stored["entries"].shape == (64,)


def test_a_memory_keeps_the_last_digest_of_each_file(tmp_path: Path, monkeypatch) -> None:
    root, memory = tmp_path / "data", tmp_path / "memory"
    monkeypatch.setattr(digest_memory, "_SETTLED_S", -1.0)
    files = [root / f"{number}.bmp" for number in (2, 0, 1)]
    for round_ in range(2):
        for number, path in enumerate(files):
            bmp(path, 10 * round_ + number)
        with remembered(memory, root):
            found = [file_digests(files[:2]), file_digests(files)]
    assert found[1] == [hashlib.sha256(path.read_bytes()).hexdigest() for path in files]
    (file,) = memory.glob("*.npz")
    with np.load(file) as stored:
        assert stored["text"].tobytes() == b"0.bmp1.bmp2.bmp"
        kept = stored["entries"].reshape(3, 64)[:, 32:]
    assert [row.tobytes().hex() for row in kept] == [found[1][i] for i in (1, 2, 0)]


def test_times_of_other_centuries_are_times(tmp_path: Path) -> None:
    digest = "ab" * 32
    # 1601, which some file systems have where there is no time, 1969, and times yet to come.
    for changed in (-11_644_473_600 * 10**9, -1, 10**19, 10**20):
        status = SimpleNamespace(st_size=3, st_mtime_ns=changed, st_ctime_ns=0, st_ino=2**64 + 1)
        memory = DigestMemory(tmp_path / "memory", tmp_path)
        memory.put(f"{tmp_path}/a", stamp_of(status), digest, seen=time.time())
        known = memory.get(f"{tmp_path}/a", stamp_of(status))
        assert known == (digest if changed < 0 else None)


def test_an_interrupted_save_mixes_nothing_up(tmp_path: Path, monkeypatch) -> None:
    memory = DigestMemory(tmp_path / "memory", tmp_path)
    status = SimpleNamespace(st_size=3, st_mtime_ns=0, st_ctime_ns=0, st_ino=1)
    digests = {name: f"{number:064x}" for number, name in enumerate("cab")}
    for name, digest in digests.items():
        memory.put(f"{tmp_path}/{name}", stamp_of(status), digest, seen=time.time())

    def interrupted(names: Names) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Names, "last_of_each", interrupted)
        with pytest.raises(KeyboardInterrupt):
            memory.save()
    (tmp_path / "memory").mkdir()
    former = tmp_path / "memory" / f"{memory._file.stem}.json"
    former.write_text("{}")
    memory.save()
    assert not former.exists()  # of a version that kept another file
    again = DigestMemory(tmp_path / "memory", tmp_path)
    for each in (memory, again):
        found = {name: each.get(f"{tmp_path}/{name}", stamp_of(status)) for name in digests}
        assert found == digests


def test_a_memory_holds_no_path_and_may_be_unwritable(tmp_path: Path, monkeypatch) -> None:
    root, memory = tmp_path / "data", tmp_path / "memory"
    bmp(root / "a.bmp", 0)
    monkeypatch.setattr(digest_memory, "_SETTLED_S", -1.0)
    with remembered(memory, root):
        before = folder_digest(root)
    (file,) = memory.glob("*.npz")
    assert str(tmp_path).encode() not in file.read_bytes() + file.name.encode()
    (tmp_path / "taken").write_text("a file")
    with remembered(tmp_path / "taken", root):
        assert folder_digest(root) == before


def test_pipes_links_and_names_of_other_encodings_are_counted(tmp_path: Path) -> None:
    bmp(tmp_path / "a.bmp", 0)
    before = {folder_digest(tmp_path)}
    os.mkfifo(tmp_path / "pipe.jpg")
    before.add(folder_digest(tmp_path))
    (tmp_path / "broken.jpg").symlink_to("nowhere")
    before.add(folder_digest(tmp_path))
    bmp(Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xe9.jpg")), 0)
    before.add(folder_digest(tmp_path))
    (tmp_path / "broken.jpg").unlink()
    (tmp_path / "broken.jpg").symlink_to("a.bmp")
    before.add(folder_digest(tmp_path))
    assert len(before) == 5
    assert folder_digest(tmp_path / "none") == folder_digest(tmp_path / "a.bmp")


def test_a_check_is_made_once_for_the_same_data(tmp_path: Path) -> None:
    runs: list[str] = []
    for word in ("a", "a", "b", "a"):
        with remembered(tmp_path, tmp_path):
            once(word, lambda word=word: runs.append(word))  # type: ignore[misc]
    assert runs == ["a", "b"]
    once("a", lambda: runs.append("without a memory"))
    assert runs[-1] == "without a memory"

    def fail() -> None:
        raise ValueError

    for _ in range(2):
        with remembered(tmp_path, tmp_path), pytest.raises(ValueError):
            once("c", fail)


def test_stages_write_what_their_lists_name(tmp_path: Path) -> None:
    root, output = tmp_path / "data", tmp_path / "out"
    write_tiny_data(root)
    settings = FORMATS.parse({"format": "folder"}, where="index")
    make_index(config=settings, root=root, output=output / "index.csv")
    make_masks(config=settings, root=root, index=output / "index.csv", output=output / "masks.csv")
    for kind, name in (("images", "pictures.sha256"), ("masks", "masks.sha256")):
        expected = [
            f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {kind}/{path.name}"
            for path in sorted((root / kind).iterdir())
        ]
        assert (output / name).read_text().splitlines() == expected
