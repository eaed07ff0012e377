"""The map store: what is written is read back, from plain h5py too; damage is named."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

from wsss.errors import UserError
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
