from __future__ import annotations

import io
import os
import pickle
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from wsss.data.build import build_index, build_masks, listing_fingerprint, mask_fingerprint
from wsss.data.formats.cls_labels import read_cls_labels
from wsss.data.formats.voc import VOC_CLASSES, VocSettings
from wsss.data.images import write_label
from wsss.errors import UserError

VOC = VocSettings()


def _vector(tags: tuple[str, ...]) -> np.ndarray:
    return np.array([name in tags for name in VOC_CLASSES], dtype=np.float32)


def _xml(root: Path, name: str, *tags: str) -> None:
    objects = "".join(
        f"\n<object><name>{tag}</name><difficult>1</difficult>"
        "<part><name>head</name></part></object>"
        for tag in tags
    )
    (root / "Annotations" / f"{name}.xml").write_text(f"<annotation>{objects}\n</annotation>\n")


def _cls_labels(root: Path, table: Mapping[object, np.ndarray]) -> Path:
    np.save(root / "cls_labels.npy", np.array(dict(table), dtype=object), allow_pickle=True)
    return root / "cls_labels.npy"


def _lists(root: Path, **lists: str) -> None:
    for name, text in lists.items():
        (root / "ImageSets/Segmentation" / f"{name}.txt").write_text(text)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A sound devkit: images a, b (train), c (val); XML for a and c, labels for a and b."""
    for folder in ("JPEGImages", "Annotations", "ImageSets/Segmentation", "SegmentationClass"):
        (tmp_path / folder).mkdir(parents=True)
    for number, name in enumerate(("a", "b", "c")):
        picture = np.full((20, 30 + number, 3), 60 * number, np.uint8)
        Image.fromarray(picture).save(tmp_path / "JPEGImages" / f"{name}.jpg")
        label = np.zeros((20, 30 + number), np.uint8)
        label[:5] = VOC_CLASSES.index(("cat", "bus", "person")[number]) + 1
        label[5] = 255
        write_label(tmp_path / "SegmentationClass" / f"{name}.png", label)
    _xml(tmp_path, "a", "dog", "cat", "dog")
    _xml(tmp_path, "c", "person")
    _cls_labels(tmp_path, {"a": _vector(("cat", "dog")), "b": _vector(("bus",))})
    _lists(tmp_path, train="a\nb\n", val="c\n\n")
    return tmp_path


def _offenders(root: Path, config: VocSettings = VOC) -> str:
    with pytest.raises(UserError) as caught:
        build_index(config, root)
    return caught.value.found


def test_sound_devkit(root: Path) -> None:
    index = build_index(VOC, root)
    assert index.classes == VOC_CLASSES
    a, b, c = index.records
    assert (a.name, a.sets, a.tags, a.width, a.height) == ("a", ("train",), ("cat", "dog"), 30, 20)
    assert (b.tags, b.width, b.path) == (("bus",), 31, "JPEGImages/b.jpg")
    assert (c.sets, c.tags) == (("val",), ("person",))
    masks = build_masks(VOC, root, index)
    assert masks == {name: f"SegmentationClass/{name}.png" for name in "abc"}


@pytest.mark.setting("index.tags_from")
def test_one_source_of_tags_alone(root: Path) -> None:
    assert "b has no tags" in _offenders(root, VocSettings(tags_from="annotations"))
    index = build_index(VocSettings(tags_from="cls_labels"), root)
    assert [record.tags for record in index.records] == [("cat", "dog"), ("bus",), ()]
    (root / "cls_labels.npy").unlink()
    with pytest.raises(UserError, match="does not exist"):
        build_index(VocSettings(tags_from="cls_labels"), root)


def test_sources_that_disagree_are_listed(root: Path) -> None:
    _cls_labels(root, {"a": _vector(("cat",)), "b": _vector(("bus",))})
    message = _offenders(root)
    assert "Annotations/a.xml: its objects are cat, dog, but cls_labels.npy says cat" in message
    assert message.startswith("1 problem ")
    assert build_index(VocSettings(tags_from="cls_labels"), root).records[0].tags == ("cat",)


def test_every_problem_is_reported_at_once_with_its_place(root: Path) -> None:
    _lists(root, train="a\nb\na\nnot a name\nd\ne\nf\n", val="c\nb\n")
    _xml(root, "d", "dog")
    _xml(root, "e", "dog", "yak")
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 40, 3), dtype=np.uint8)).save(
        root / "JPEGImages/e.jpg"
    )
    data = (root / "JPEGImages/e.jpg").read_bytes()
    (root / "JPEGImages/e.jpg").write_bytes(data[: len(data) // 2])
    Image.new("RGB", (4, 4)).save(root / "JPEGImages/f.jpg")
    (root / "Annotations/f.xml").write_text("<annotation><object>")
    message = _offenders(root)
    lists = "ImageSets/Segmentation"
    for expected in (
        f"{lists}/train.txt, line 3: a is listed twice, first in line 1",
        f"{lists}/train.txt, line 4: 'not a name' is not an image name",
        f"{lists}/train.txt, line 5: there is no JPEGImages/d.jpg",
        f"{lists}/val.txt, line 2: b is also in train.txt, line 2",
        "JPEGImages/e.jpg: cannot read this picture",
        "Annotations/e.xml, line 3: 'yak' is not one of the 20 VOC classes",
        "Annotations/f.xml: cannot read it",
        f"{lists}/train.txt, line 7: f has no tags",
    ):
        assert expected in message
    assert message.startswith("8 problems ")


def test_train_aug_in_the_fields_form_and_its_masks(root: Path) -> None:
    pairs = [f"/JPEGImages/{name}.jpg /SegmentationClassAug/{name}.png\n" for name in "abg"]
    _lists(root, train_aug="".join(pairs))
    Image.new("RGB", (8, 6)).save(root / "JPEGImages/g.jpg")
    _xml(root, "g", "sofa")
    (root / "SegmentationClassAug").mkdir()
    for name, size in (("a", (20, 30)), ("g", (6, 8))):
        write_label(root / "SegmentationClassAug" / f"{name}.png", np.zeros(size, np.uint8))
    index = build_index(VOC, root)
    assert [record.name for record in index.training_set().records] == ["a", "b", "g"]
    masks = build_masks(VOC, root, index)
    assert masks["a"] == "SegmentationClass/a.png"
    assert masks["g"] == "SegmentationClassAug/g.png"


@pytest.mark.parametrize("training", ["train", "train_aug"])
@pytest.mark.parametrize("held_out", ["val", "test"])
def test_what_is_scored_on_is_not_trained_on(root: Path, training: str, held_out: str) -> None:
    for name in ("train", "val"):
        (root / f"ImageSets/Segmentation/{name}.txt").unlink()
    _lists(root, **{training: "a\nb\n", held_out: "c\na\n"})
    assert (
        f"ImageSets/Segmentation/{held_out}.txt, line 2: a is also in {training}.txt, line 1: "
        "an image to score on must not be trained on"
    ) in _offenders(root)


def test_all_mask_problems_are_reported_at_once(root: Path) -> None:
    index = build_index(VOC, root)
    write_label(root / "SegmentationClass/a.png", np.full((20, 30), 21, np.uint8))
    write_label(root / "SegmentationClass/b.png", np.zeros((31, 20), np.uint8))
    (root / "SegmentationClass/c.png").unlink()
    with pytest.raises(UserError) as caught:
        build_masks(VOC, root, index)
    for expected in (
        "SegmentationClass/a.png: it holds 21, but labels are 0..20 and 255",
        "SegmentationClass/b.png: it is 20 x 31, its image 31 x 20",
        "SegmentationClass/c.png: this mask does not exist",
    ):
        assert expected in caught.value.found


def test_masks_are_optional_and_leave_the_index_alone(root: Path) -> None:
    before = build_index(VOC, root), listing_fingerprint(VOC, root), mask_fingerprint(VOC, root)
    for path in (root / "SegmentationClass").iterdir():
        path.unlink()
    index = build_index(VOC, root)
    assert (index, listing_fingerprint(VOC, root)) == before[:2]
    assert mask_fingerprint(VOC, root) != before[2]
    assert build_masks(VOC, root, index) == {}


def test_fingerprint_follows_lists_and_tags_and_no_time_stamp(root: Path) -> None:
    seen = {listing_fingerprint(VOC, root)}
    for path in root.rglob("*"):
        os.utime(path, (1, 1))
    assert listing_fingerprint(VOC, root) in seen
    changes = (
        lambda: _lists(root, train="b\na\n"),
        lambda: _xml(root, "a", "dog", "cat", "sheep"),
        lambda: _cls_labels(root, {"a": _vector(("cat",)), "b": _vector(("bus",))}),
        lambda: _lists(root, trainval="a\nb\nc\n"),
    )
    for change in changes:
        change()
        fingerprint = listing_fingerprint(VOC, root)
        assert fingerprint not in seen
        seen.add(fingerprint)


def test_missing_data_says_what_and_where_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"config\.local\.yaml"):
        build_index(VOC, tmp_path / "nowhere")
    for function in (build_index, listing_fingerprint):
        with pytest.raises(UserError, match=r"host\.robots\.ox\.ac\.uk"):
            function(VOC, tmp_path)
    (tmp_path / "VOCdevkit/VOC2012").mkdir(parents=True)
    with pytest.raises(UserError, match="VOCdevkit/VOC2012 as the data root"):
        build_index(VOC, tmp_path)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("kind", [np.float32, np.float64, np.uint8, np.int64, np.bool_])
def test_cls_labels_of_any_protocol_and_type(tmp_path: Path, protocol: int, kind: type) -> None:
    table = {"2007_000032": np.eye(20)[3].astype(kind), 2007000033: np.ones(20).astype(kind)}
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        stream, {"descr": "|O", "fortran_order": False, "shape": ()}
    )
    pickle.dump(np.array(table, dtype=object), stream, protocol)
    (tmp_path / "x.npy").write_bytes(stream.getvalue())
    labels = read_cls_labels(tmp_path / "x.npy", 20)
    assert labels == {"2007_000032": (3,), "2007_000033": tuple(range(20))}


class _Malicious:
    def __init__(self, target: Path) -> None:
        self._target = target

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self._target),)


class _Forged:
    """Pickles as what it is given: a function, its arguments, and a state."""

    def __init__(self, *parts: object) -> None:
        self.parts = parts

    def __reduce__(self) -> tuple[object, ...]:
        return self.parts


def test_a_forged_type_is_refused_before_numpy_believes_it(tmp_path: Path) -> None:
    # Bytes as addresses of objects: a record of one object, with flags that deny it.
    fields = {"a": (np.dtype(object), 0)}
    state = (3, "|", None, ("a",), fields, 8, 1, 0)
    record = _Forged(np.dtype, ("V8", False, True), state)
    reconstruct = np.zeros(1, object).__reduce__()[0]
    array = _Forged(reconstruct, (np.ndarray, (0,), b"b"), (1, (1,), record, False, b"A" * 8))
    stream = io.BytesIO()
    header = {"descr": "|O", "fortran_order": False, "shape": ()}
    np.lib.format.write_array_header_1_0(stream, header)
    pickle.dump(array, stream, 2)
    (tmp_path / "x.npy").write_bytes(stream.getvalue())
    with pytest.raises(UserError, match="not an array of objects"):
        read_cls_labels(tmp_path / "x.npy", 20)


def test_malicious_pickle_is_refused_and_runs_nothing(root: Path, tmp_path: Path) -> None:
    target = tmp_path / "owned"
    table = {"a": _vector(("cat",)), "b": _Malicious(target)}
    path = _cls_labels(root, table)  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"mkdir.*\n.*cls_labels\.npy"):
        build_index(VOC, root)
    assert not target.exists()
    np.load(path, allow_pickle=True)  # the attack is a real one: NumPy runs it
    assert target.exists()


@pytest.mark.parametrize(
    "table",
    [
        {"a": np.ones(21, np.float32)},
        {"a": np.full(20, 0.5, np.float32)},
        {"a": [1, 0]},
        {("a", 1): np.ones(20, np.float32)},
        {"a": np.array([None] * 20, dtype=object)},
        ["a"],
    ],
)
def test_other_tables_are_refused(tmp_path: Path, table: object) -> None:
    box = np.empty((), dtype=object)
    box[()] = table
    np.save(tmp_path / "x.npy", box, allow_pickle=True)
    with pytest.raises(UserError, match=r"x\.npy") as caught:
        read_cls_labels(tmp_path / "x.npy", 20)
    if isinstance(table, dict) and isinstance(table.get("a"), list):
        assert "a: not an array" in caught.value.found


def test_damaged_label_files_are_refused(root: Path) -> None:
    path = root / "cls_labels.npy"
    data = path.read_bytes()
    for damaged in (b"", b"text", data[:70], data[: len(data) // 2], data[:-3]):
        path.write_bytes(damaged)
        with pytest.raises(UserError, match=r"cls_labels\.npy"):
            read_cls_labels(path, 20)
    np.save(path, np.ones(3))
    with pytest.raises(UserError, match="not a pickled dict"):
        read_cls_labels(path, 20)


def test_real_devkit() -> None:
    place = os.environ.get("WSSS_VOC_ROOT")
    if place is None:
        assert "voc" not in os.environ.get("WSSS_REQUIRE", "").split(",")
        pytest.skip("WSSS_VOC_ROOT is not set")
    root = Path(place)
    index = build_index(VOC, root)
    table = np.load(root / "cls_labels.npy", allow_pickle=True).item()
    for record, row in zip(index.records, index.multi_hot(), strict=True):
        np.testing.assert_array_equal(row, table[record.name])
        assert record.tags
        with Image.open(root / record.path) as image:
            assert image.size == (record.width, record.height)
    assert len(index.training_set().records) == len(
        (root / "ImageSets/Segmentation/train.txt").read_text().split()
    )
    assert build_masks(VOC, root, index).keys() == {record.name for record in index.records}


_ONE_OBJECT = b"{'descr': '|O', 'fortran_order': False, 'shape': (), }"


def _npy(content: bytes, header: bytes = _ONE_OBJECT) -> bytes:
    text = header + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + content


_NESTED = b"{'descr': " + b"[('a', " * 60 + b"'|O'" + b")]" * 60 + b", 'shape': (), }"


@pytest.mark.parametrize(
    "content",
    [
        # A value remembered under the number 2**31: gigabytes of room for what may come before it.
        _npy(b"\x80\x02}r\xff\xff\xff\x7f."),
        # A number of bytes in the place of bytes.
        _npy(
            b"\x80\x04cnumpy.core.numeric\n_frombuffer\n"
            b"(\x8a\x06\x00\x00\x00\x00\x00\x01cnumpy\ndtype\n\x8c\x02f4\x85RK\x01\x8c\x01CtR."
        ),
        # The name of a type, of tuples that hold each other twice, 60 deep.
        _npy(b"\x80\x02cnumpy\ndtype\n)" + b"2\x86" * 60 + b"\x85R."),
        _npy(b"\x80\x02}.", _NESTED),
        _npy(b"\x80\x02}.", _ONE_OBJECT.replace(b"|O", b"<f8").replace(b"()", b"(9999999999,)")),
        _npy(b""),
        b"\x93NUMPY\x01\x00\xff\xff",
    ],
    ids=["memo", "bytes", "tuples", "types", "numbers", "nothing", "cut"],
)
def test_a_small_label_file_takes_little(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.npy").write_bytes(content)
    code = (
        "import resource, sys; from pathlib import Path\n"
        "from wsss.data.formats.cls_labels import read_cls_labels\n"
        "from wsss.errors import UserError\n"
        "resource.setrlimit(resource.RLIMIT_CPU, (60, 60))\n"
        "resource.setrlimit(resource.RLIMIT_DATA, (1 << 30, 1 << 30))\n"
        "try: read_cls_labels(Path(sys.argv[1]), 20)\n"
        "except UserError as error: print(error.found)\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "x.npy")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout.startswith("cannot read this label file"), done.stderr
    assert "MemoryError" not in done.stdout
