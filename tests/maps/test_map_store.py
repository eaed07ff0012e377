"""The map store: what is written is read back, from plain h5py too; damage is named."""

from __future__ import annotations

import errno
import fcntl
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from memory_helpers import peak_of

from wsss.errors import UserError
from wsss.maps.hdf5_sink import Hdf5Sink
from wsss.maps.map_store import MapStore, MapStoreWriter, map_size, upsample

CLASSES = ("cat", "dog", "cow")


def write(path: Path, names: list[str], *, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    written = {}
    with MapStoreWriter(path, classes=CLASSES, attributes={"config": "abc", "n": 3}) as store:
        for position, name in enumerate(names):
            classes = [position % 3, 2] if position % 3 != 2 else [2]
            written[name] = rng.random((len(classes), *map_size(30, 41 + position)))
            store.add(name, classes, written[name], (30, 41 + position))
    return written


def test_round_trip(tmp_path: Path) -> None:
    written = write(tmp_path / "s.h5", ["a", "b c", "x/y", "z%2F"])
    with MapStore(tmp_path / "s.h5") as store:
        assert store.names == sorted(written)
        assert store.classes == CLASSES
        assert (store.attributes["config"], store.attributes["n"]) == ("abc", 3)
        for position, (name, maps) in enumerate(written.items()):
            read = store.read(name)
            np.testing.assert_array_equal(read.maps, maps.astype(np.float16).astype(np.float32))
            assert read.size == (30, 41 + position)
            assert read.class_indices.tolist() == ([position % 3, 2] if position != 2 else [2])


def test_a_store_of_many_images_opens_in_little_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # It reads a megabyte, however many images there are.
    monkeypatch.setattr("wsss.maps.map_store.check_form", lambda path: None)
    count = 10_000
    write(tmp_path / "s.h5", ["p000000"])
    with h5py.File(tmp_path / "s.h5", "r+", libver="latest") as file:
        for number in range(1, count):
            file["maps"][f"p{number:06d}"] = file["maps"]["p000000"]
    store, _, most = peak_of(lambda: MapStore(tmp_path / "s.h5"))
    with store:
        assert store.names == [f"p{number:06d}" for number in range(count)]
    assert most / count < 45


def test_readable_with_plain_h5py(tmp_path: Path) -> None:
    written = write(tmp_path / "s.h5", ["2007_000032"])
    with h5py.File(tmp_path / "s.h5") as file:
        data = file["maps/2007_000032"]
        assert data.dtype == np.float16
        assert list(file.attrs["classes"]) == list(CLASSES)
        assert data.attrs["size"].tolist() == [30, 41]
        np.testing.assert_allclose(data[()], written["2007_000032"], atol=1e-3)


def test_same_bytes_twice(tmp_path: Path) -> None:
    for name in ("one.h5", "two.h5"):
        write(tmp_path / name, ["a", "b"])
    assert (tmp_path / "one.h5").read_bytes() == (tmp_path / "two.h5").read_bytes()


def test_shards_read_as_one(tmp_path: Path) -> None:
    first = write(tmp_path / "1.h5", ["a", "c"])
    second = write(tmp_path / "2.h5", ["b"], seed=1)
    with MapStore([tmp_path / "1.h5", tmp_path / "2.h5"]) as store:
        assert store.names == ["a", "b", "c"]
        np.testing.assert_allclose(store.read("b").maps, second["b"], atol=1e-3)
        np.testing.assert_allclose(store.read("c").maps, first["c"], atol=1e-3)


def test_files_are_opened_anew_now_and_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """HDF5 keeps memory of every data set opened, until the file is closed."""
    monkeypatch.setattr("wsss.maps.map_store.RENEW_AFTER", 2)
    names = ["a", "b", "c", "d", "e"]
    written = write(tmp_path / "1.h5", names[:3]) | write(tmp_path / "2.h5", names[3:], seed=1)
    opened: list[Path] = []
    plain = MapStore._open

    def counted(path: Path) -> h5py.File:
        opened.append(path)
        return plain(path)

    monkeypatch.setattr(MapStore, "_open", staticmethod(counted))
    with MapStore([tmp_path / "1.h5", tmp_path / "2.h5"]) as store:
        for name in names:
            np.testing.assert_allclose(store.read(name).maps, written[name], atol=1e-3)
        assert len(opened) == 2 * (1 + 2)
        # Another file of that name is not read on as if it were the same.
        (tmp_path / "kept.h5").hardlink_to(tmp_path / "2.h5")
        write(tmp_path / "2.h5", names[3:], seed=2)
        with pytest.raises(UserError, match="replaced while it was read"):
            store.read("d")


def test_images_that_are_not_kept_are_unknown_from_then_on(tmp_path: Path) -> None:
    first, second = (
        write(tmp_path / f"{part}.h5", names, seed=part)
        for part, names in enumerate((["a", "c", "e"], ["b", "d"]))
    )
    with MapStore([tmp_path / "0.h5", tmp_path / "1.h5"]) as store:
        store.keep(["d", "c", "b"])
        assert store.names == ["b", "c", "d"]
        for name in ("d", "b", "c"):
            expected = (first | second)[name]
            np.testing.assert_allclose(store.read(name).maps, expected, atol=1e-3)
        with pytest.raises(UserError, match="image 'a' has no maps"):
            store.read("a")
        with pytest.raises(UserError, match="image 'x' has no maps"):
            store.keep(["b", "x"])


def test_nothing_under_the_final_name_after_an_error(tmp_path: Path) -> None:
    path = tmp_path / "s.h5"
    with (
        pytest.raises(UserError, match="not finite"),
        MapStoreWriter(path, classes=CLASSES, attributes={}) as store,
    ):
        store.add("a", [0], np.full((1, 4, 4), np.nan), (16, 16))
    assert list(tmp_path.iterdir()) == []


def test_damage_is_named(tmp_path: Path) -> None:
    path = tmp_path / "s.h5"
    write(path, ["a"])
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(UserError, match="cannot be read"):
        MapStore(path)
    with pytest.raises(UserError, match="does not exist"):
        MapStore(tmp_path / "none.h5")
    with h5py.File(tmp_path / "other.h5", "w"):
        pass
    with pytest.raises(UserError, match="not a map store"):
        MapStore(tmp_path / "other.h5")
    write(path, ["a"])
    with MapStore(path) as store, pytest.raises(UserError, match="'b' has no maps"):
        store.read("b")


def bilinear(values: np.ndarray, height: int, width: int, fy: float, fx: float) -> np.ndarray:
    """Half-pixel-centre bilinear interpolation, one pixel at a time, edges clamped."""
    out = np.zeros((height, width))
    for y in range(height):
        for x in range(width):
            sy = min(max((y + 0.5) / fy - 0.5, 0), values.shape[0] - 1)
            sx = min(max((x + 0.5) / fx - 0.5, 0), values.shape[1] - 1)
            top, left = int(sy), int(sx)
            bottom, right = min(top + 1, values.shape[0] - 1), min(left + 1, values.shape[1] - 1)
            dy, dx = sy - top, sx - left
            upper = values[top, left] * (1 - dx) + values[top, right] * dx
            lower = values[bottom, left] * (1 - dx) + values[bottom, right] * dx
            out[y, x] = upper * (1 - dy) + lower * dy
    return out


def test_upsampling_against_the_formula() -> None:
    height, width = 14, 18
    small = np.random.default_rng(0).random((2, *map_size(height, width))).astype(np.float32)
    h, w = small.shape[1:]
    for how, fy, fx in (("resize", height / h, width / w), ("times4", 4.0, 4.0)):
        got = upsample(small, (height, width), how)
        want = np.stack([bilinear(m, height, width, fy, fx) for m in small])
        np.testing.assert_allclose(got, want, atol=1e-6)
    with pytest.raises(UserError, match="unknown upsampling"):
        upsample(small, (height, width), "nearest")


def test_a_writer_that_opens_its_file_again_writes_all_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """HDF5 keeps memory of every data set made, until the file is closed."""
    monkeypatch.setattr("wsss.maps.map_store.RENEW_AFTER", 2)
    closed: list[MapStoreWriter] = []
    plain = MapStoreWriter._close

    def counted(writer: MapStoreWriter) -> None:
        closed.append(writer)
        plain(writer)

    monkeypatch.setattr(MapStoreWriter, "_close", counted)
    names = ["a", "b", "c", "d", "e"]
    written = write(tmp_path / "1.h5", names)
    assert len(closed) == 2 + 1
    write(tmp_path / "2.h5", names)
    assert (tmp_path / "1.h5").read_bytes() == (tmp_path / "2.h5").read_bytes()
    with MapStore(tmp_path / "1.h5") as store:
        assert store.names == names
        for name in names:
            np.testing.assert_allclose(store.read(name).maps, written[name], atol=1e-3)


def forged(path: Path, libver: str = "latest") -> h5py.File:
    """Begin a store by hand, with everything but its maps."""
    file = h5py.File(path, "w", libver=libver)
    file.attrs.update({"format": "wsss-maps", "format_version": 1, "upsampling": "resize"})
    file.attrs["classes"] = np.array(CLASSES, dtype=h5py.string_dtype())
    return file


def describe(data: h5py.Dataset, size: tuple[int, int], classes: tuple[int, ...] = (0,)) -> None:
    data.attrs["classes"] = np.array(classes, np.int64)
    data.attrs["size"] = np.array(size, np.int64)


def test_what_a_store_claims_is_not_read_before_it_is_believed(tmp_path: Path) -> None:
    """Of a few kilobytes each, they would take gigabytes."""
    path = tmp_path / "s.h5"
    half = np.float16
    with forged(path) as file:
        group = file.create_group("maps")
        # Written nowhere, and read as zeros.
        huge = group.create_dataset("huge", (1, 60_000, 60_000), half, chunks=(1, 1000, 1000))
        describe(huge, (60_000, 60_000))
        packed = {"compression": "gzip", "chunks": (1, 4000, 4000)}
        describe(group.create_dataset("packed", (1, 4000, 4000), half, **packed), (300, 400))
        describe(group.create_dataset("many", (99, 9, 9), half), (9, 9), tuple(range(99)))
        describe(group.create_dataset("other", (1, 9, 9), half), (9, 9), (3,))
        describe(group.create_dataset("flat", (9, 9), half), (9, 9))
        describe(group.create_dataset("texts", (1, 9, 9), h5py.string_dtype()), (9, 9))
        describe(group.create_dataset("big", (1, 400, 400), half, fillvalue=1), (400, 400))
        group.create_dataset("bare", (1, 9, 9), half)
    assert path.stat().st_size < 100_000
    with MapStore(path) as store:
        for name in ("huge", "packed", "many", "other", "flat", "texts", "bare"):
            with pytest.raises(UserError, match=f"image '{name}' cannot be read"):
                store.read(name)
        # Possible as such, but not for the picture that the index has.
        assert store.read("big", (400, 400)).maps.shape == (1, 400, 400)
        with pytest.raises(UserError, match="40 x 30 pixels, its maps 400 x 400"):
            store.read("big", (30, 40))


def test_what_lies_in_other_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(bytes(range(200)))
    write(tmp_path / "sound.h5", ["a"])
    with forged(tmp_path / "s.h5") as file:
        group = file.create_group("maps")
        outside = [(str(tmp_path / "secret"), 0, 200)]
        describe(group.create_dataset("raw", (1, 9, 9), np.float16, external=outside), (9, 9))
        layout = h5py.VirtualLayout((2, 8, 11), np.float16)
        layout[:] = h5py.VirtualSource(tmp_path / "sound.h5", "maps/a", (2, 8, 11))
        describe(group.create_virtual_dataset("virtual", layout), (30, 41), (0, 2))
        group["linked"] = h5py.ExternalLink(str(tmp_path / "sound.h5"), "maps/a")
        group["soft"] = h5py.SoftLink("/maps/raw")
    with MapStore(tmp_path / "s.h5") as store:
        for name in store.names:
            with pytest.raises(UserError, match=r"another file|is a link"):
                store.read(name)
    with forged(tmp_path / "t.h5") as file:
        file["maps"] = h5py.ExternalLink(str(tmp_path / "sound.h5"), "maps")
    with pytest.raises(UserError, match="maps is a link"):
        MapStore(tmp_path / "t.h5")


def test_the_form_without_checksums_is_refused(tmp_path: Path) -> None:
    with forged(tmp_path / "s.h5", libver="earliest") as file:
        file.create_group("maps")
    with pytest.raises(UserError, match="HDF5's oldest, without checksums"):
        MapStore(tmp_path / "s.h5")


def test_every_flipped_bit_is_noticed_or_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "s.h5"
    sound = write(path, ["a", "b"])
    content = path.read_bytes()
    for position in range(0, len(content), 17):
        damaged = bytearray(content)
        damaged[position] ^= 1 << position % 8
        path.write_bytes(damaged)
        try:
            with MapStore(path) as store:
                found = {name: store.read(name).maps for name in store.names}
        except UserError as error:
            assert "s.h5" in str(error)
            continue
        assert found.keys() == sound.keys()
        for name, maps in sound.items():
            np.testing.assert_allclose(found[name], maps, atol=1e-3)


HOLD = """
import sys, h5py
with h5py.File(sys.argv[1], "a", libver="latest") as file:
    print("open", flush=True)
    sys.stdin.read()
"""


def test_a_store_that_is_in_use_is_not_called_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "s.h5"
    write(path, ["a"])
    command = [sys.executable, "-c", HOLD, str(path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **pipes) as notebook:
        assert notebook.stdout.readline() == "open\n"
        with pytest.raises(UserError, match="open for writing elsewhere") as caught:
            MapStore(path)
        assert "stage runs again" in caught.value.fix and "need not be damaged" in str(caught.value)
        # Who asks for locks in the environment gets them.
        monkeypatch.setenv("HDF5_USE_FILE_LOCKING", "TRUE")
        with pytest.raises(UserError, match="open for writing elsewhere"):
            MapStore(path)
        notebook.communicate("")
    # To read, a lock is no hindrance, nor is a file system without any.
    monkeypatch.delenv("HDF5_USE_FILE_LOCKING")
    with open(path, "r+b") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        with pytest.raises(OSError, match="unable to lock file"):
            h5py.File(path, "r")
        with MapStore(path) as store:
            assert store.names == ["a"]


def test_a_store_that_may_not_be_read_is_not_called_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "s.h5", ["a"])

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("builtins.open", refuse)  # root may read everything
    with pytest.raises(UserError, match="permission denied") as caught:
        MapStore(tmp_path / "s.h5")
    assert "delete" not in str(caught.value)


def test_the_file_under_hdf5_is_closed_at_its_end(tmp_path: Path) -> None:
    with Hdf5Sink(tmp_path / "file") as sink:
        sink.write(b"ab")
        assert not sink.closed
    assert sink.closed and (tmp_path / "file").read_bytes() == b"ab"


def test_only_what_a_stage_writes_is_to_be_deleted(tmp_path):
    for name, said in (("holiday.png", False), ("cams.h5", True)):
        (tmp_path / name).write_bytes(b"mine")
        with pytest.raises(UserError, match="does not begin as HDF5") as caught:
            MapStore(tmp_path / name)
        assert ("rm " in str(caught.value.fix)) == said
