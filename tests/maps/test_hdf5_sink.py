"""A file that goes on in memory where the disk is full, and behaves as a file all the same."""

from __future__ import annotations

import errno
import io
from pathlib import Path

import pytest

from wsss.maps.hdf5_sink import Hdf5Sink


class Full(io.FileIO):
    """A file on a disk that is full from now on."""

    full = False

    def write(self, data: object) -> int:
        if self.full:
            raise OSError(errno.ENOSPC, "no space")
        return super().write(data)  # type: ignore[arg-type]

    def truncate(self, size: int | None = None) -> int:
        if self.full:
            raise OSError(errno.ENOSPC, "no space")
        return super().truncate(size)


@pytest.fixture
def sink(tmp_path: Path) -> Hdf5Sink:
    made = Hdf5Sink(tmp_path / "file")
    made._file.close()
    made._file = Full(tmp_path / "file", "w+")  # type: ignore[assignment]
    return made


def content(sink: Hdf5Sink) -> bytes:
    """All that is in it; the place stays."""
    place = sink.tell()
    size = sink.seek(0, io.SEEK_END)
    sink.seek(0)
    found = bytearray(size)
    assert sink.readinto(found) == size
    sink.seek(place)
    return bytes(found)


@pytest.mark.parametrize("when", ["never", "before writing", "before truncating"])
def test_it_is_a_file_wherever_it_is(sink: Hdf5Sink, when: str) -> None:
    sink.write(b"abc")
    sink._file.full = when == "before writing"  # type: ignore[attr-defined]
    assert sink.write(b"def") == 3
    sink._file.full = when != "never"  # type: ignore[attr-defined]
    sink.seek(1)
    assert sink.truncate(9) == 9 and sink.tell() == 1
    assert content(sink) == b"abcdef\0\0\0"
    assert sink.truncate(4) == 4 and sink.tell() == 1
    assert content(sink) == b"abcd"
    assert sink.truncate() == 1 and content(sink) == b"a"
    sink.write(b"xy")
    assert content(sink) == b"axy"
    if when == "never":
        sink.check()
    else:
        with pytest.raises(OSError, match="no space"):
            sink.check()
    sink.close()
