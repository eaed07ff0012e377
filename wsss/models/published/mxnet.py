"""Reader of MXNet's `.params` files, without MXNet.

The published ImageNet weights of ResNet-38d are such a file. All three on-disk layouts of dense
arrays are read. Every size the file states is checked against the bytes that are left before
anything is allocated, so that a damaged file can never cost more memory than its own size.
"""

from __future__ import annotations

import math
import struct
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from torch import Tensor

from wsss.errors import UserError

_LIST_MAGIC = 0x112
_V1_MAGIC = 0xF993FAC8
_V2_MAGIC = 0xF993FAC9
_DENSE = 0
_TYPES: dict[int, str] = {
    0: "<f4",
    1: "<f8",
    2: "<f2",
    3: "|u1",
    4: "<i4",
    5: "|i1",
    6: "<i8",
}
_MAX_DIMENSIONS = 32
# Python objects cost more than the few bytes an array header takes; no real file comes near.
_MAX_ARRAYS = 65536


class _Reader:
    """A file with a length: reads past the end are errors, before any memory is taken."""

    def __init__(self, handle: BinaryIO, path: Path, size: int) -> None:
        self.handle = handle
        self.path = path
        self.left = size

    def fail(self, found: str) -> UserError:
        return UserError(
            f"this MXNet weight file is damaged: {found}",
            where=f"{self.path}, byte {self.handle.tell()}",
            fix="fetch it again and compare its size or checksum with the publisher's",
        )

    def claim(self, size: int, what: str) -> None:
        if size > self.left:
            raise self.fail(f"{what} needs {size} bytes, but only {self.left} are left")
        self.left -= size

    def raw(self, size: int, what: str) -> bytes:
        self.claim(size, what)
        data = self.handle.read(size)
        if len(data) != size:
            raise self.fail(f"{what} ends early")
        return data

    def numbers(self, code: str, count: int, what: str) -> tuple[int, ...]:
        layout = f"<{count}{code}"
        return struct.unpack(layout, self.raw(struct.calcsize(layout), what))

    def number(self, code: str, what: str) -> int:
        return self.numbers(code, 1, what)[0]


def read_mxnet_params(path: str | Path) -> dict[str, Tensor]:
    """Read the named arrays of a `.params` file.

    Args:
        path: The file.

    Returns:
        Tensors on the CPU in the file's types (float16, 32, 64 or integer), by their names in the
        file (`arg:...` for weights, `aux:...` for running statistics).

    Raises:
        UserError: The file is something else, truncated, or states sizes it does not have.
    """
    file = Path(path)
    try:
        with file.open("rb") as handle:
            return _read(_Reader(handle, file, file.stat().st_size))
    except OSError as error:
        raise UserError(f"cannot read this file: {error.strerror or error}", where=file) from None


def _read(reader: _Reader) -> dict[str, Tensor]:
    if reader.left < 24 or reader.number("Q", "the file's first word") != _LIST_MAGIC:
        raise UserError(
            "this is not an MXNet weight file",
            where=reader.path,
            expected=f"the first 8 bytes to hold the number {_LIST_MAGIC:#x}",
        )
    reader.number("Q", "the reserved word")
    count = _checked_count(reader, "arrays", smallest=21)
    arrays = [_read_array(reader, index) for index in range(count)]
    name_count = _checked_count(reader, "names", smallest=8)
    if name_count != count:
        raise reader.fail(f"it has {count} arrays but {name_count} names")
    named: dict[str, Tensor] = {}
    for array in arrays:
        length = reader.number("Q", "a name's length")
        try:
            name = reader.raw(length, "a name").decode("utf-8")
        except UnicodeDecodeError:
            raise reader.fail("a name is not UTF-8") from None
        if name in named:
            raise reader.fail(f"the name {name!r} occurs twice")
        named[name] = array
    if reader.left:
        raise reader.fail(f"{reader.left} bytes are left after its end")
    return named


def _checked_count(reader: _Reader, what: str, *, smallest: int) -> int:
    count = reader.number("Q", f"the number of {what}")
    if count > _MAX_ARRAYS or count * smallest > reader.left:
        raise reader.fail(f"it states {count} {what}, which {reader.left} bytes cannot hold")
    return count


def _read_shape(reader: _Reader, what: str) -> tuple[int, ...]:
    first = reader.number("I", what)
    code = "q"
    if first == _V2_MAGIC:
        storage = reader.number("i", what)
        if storage != _DENSE:
            raise reader.fail(f"{what} is sparse (storage type {storage}); only dense is read")
        dimensions = reader.number("I", what)
    elif first == _V1_MAGIC:
        dimensions = reader.number("I", what)
    else:
        # The oldest layout has no magic number: it starts with the number of dimensions, and its
        # sizes are 32 bits wide.
        dimensions, code = first, "I"
    if not 1 <= dimensions <= _MAX_DIMENSIONS:
        raise reader.fail(f"{what} states {dimensions} dimensions")
    shape = reader.numbers(code, dimensions, what)
    if min(shape) < 1:
        raise reader.fail(f"{what} states the shape {shape}")
    return shape


def _read_array(reader: _Reader, index: int) -> Tensor:
    what = f"array {index}"
    shape = _read_shape(reader, what)
    reader.numbers("i", 2, what)  # device it was saved from, and its number: of no use here
    type_flag = reader.number("i", what)
    if type_flag not in _TYPES:
        raise reader.fail(f"{what} has the unknown type {type_flag}")
    dtype = np.dtype(_TYPES[type_flag])
    count = math.prod(shape)
    reader.claim(count * dtype.itemsize, f"{what} of shape {shape}")
    values = np.fromfile(reader.handle, dtype=dtype, count=count)
    if values.size != count:
        raise reader.fail(f"{what} ends early")
    return torch.from_numpy(values.reshape(shape))
