"""The field's `cls_labels.npy`, a pickled dict of label vectors, read without running it.

A pickle can call any importable function. Here only the few names that a dict of NumPy arrays
needs are known, and each stands for an inert stand-in below: no NumPy code sees the file's
state before it has been checked. NumPy itself trusts the state: a record type whose flags hide
that it holds objects makes it follow the file's bytes as addresses.
"""

from __future__ import annotations

import io
import pickle
import pickletools
import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsss.errors import UserError

# As `numpy.save` writes it for one object. Any other header is refused: types nested in
# each other keep NumPy's parser busy for hours.
_HEADER = re.compile(
    rb"\x93NUMPY(?:\x01\x00..|[\x02\x03]\x00....)"
    rb"\{'descr': '\|O', 'fortran_order': (?:False|True), 'shape': \((?:1,)?\), \} *\n",
    re.DOTALL,
)
_NUMBERS = re.compile(r"[<|]?([biuf][1248]|b1|\?)")


class _DtypeStandIn:
    """What `numpy.dtype(code)` unpickles to: remembers the code and the byte order."""

    def __init__(self, code: object, *flags: object) -> None:
        # Of tuples within each other, a text would be longer than any memory.
        self.code = code if isinstance(code, str) else ""
        self.order = "<"

    def __setstate__(self, state: object) -> None:
        if isinstance(state, tuple) and len(state) > 1 and state[1] == ">":
            self.order = ">"

    def numpy(self) -> np.dtype[Any]:
        if not _NUMBERS.fullmatch(self.code):
            raise ValueError(f"an array of type {self.code!r}")
        return np.dtype(self.code).newbyteorder(self.order)  # type: ignore[arg-type]


class _ArrayStandIn:
    """What an array unpickles to: shape, type and raw data, still unchecked."""

    def __init__(self, *arguments: object) -> None:
        self.state: tuple[Any, ...] = ()

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.state = state

    def items(self) -> list[Any]:
        """Return the elements of an object array."""
        data = self.state[4] if len(self.state) == 5 else None
        if not isinstance(data, list):
            raise ValueError("not an array of objects")
        return data

    def numpy(self) -> NDArray[Any]:
        """Return a one-dimensional numeric array."""
        if len(self.state) != 5:
            raise ValueError("an array without content")
        _, shape, dtype, _, data = self.state
        if not isinstance(dtype, _DtypeStandIn) or not isinstance(data, bytes):
            raise ValueError("an array of something else than numbers")
        array = np.frombuffer(data, dtype=dtype.numpy())
        if shape != array.shape:
            raise ValueError(f"an array of shape {shape!r} with {array.size} values")
        return array


class _ArrayClass:
    """Stands for the class `numpy.ndarray`, which `_reconstruct` gets as an argument."""


def _frombuffer_stand_in(
    data: object, dtype: object, shape: object, order: object
) -> _ArrayStandIn:
    # How protocol 5 spells an array. Of a number, `bytes` would make so many.
    if not isinstance(data, (bytes, bytearray)):
        raise ValueError("an array whose content is no bytes")
    array = _ArrayStandIn()
    array.state = (1, shape, dtype, False, bytes(data))
    return array


def _scalar_stand_in(dtype: _DtypeStandIn, data: bytes) -> Any:
    return np.frombuffer(data, dtype=dtype.numpy())[0].item()


def _latin1_bytes(text: object, encoding: object) -> bytes:
    # How protocol 2 spells bytes; the real function would take any codec.
    if not isinstance(text, str) or encoding != "latin1":
        raise ValueError(f"bytes in the encoding {encoding!r}")
    return text.encode("latin1")


_KNOWN: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): _ArrayClass(),
    ("numpy", "dtype"): _DtypeStandIn,
    ("_codecs", "encode"): _latin1_bytes,
}
for _core in ("numpy.core", "numpy._core"):  # before and since NumPy 2
    _KNOWN[f"{_core}.multiarray", "_reconstruct"] = _ArrayStandIn
    _KNOWN[f"{_core}.multiarray", "scalar"] = _scalar_stand_in
    _KNOWN[f"{_core}.numeric", "_frombuffer"] = _frombuffer_stand_in


class _ForbiddenNameError(Exception):
    """The pickle asks for something that a table of labels does not need."""


class _LabelUnpickler(pickle.Unpickler):
    def find_class(self, module_name: str, global_name: str) -> Any:
        try:
            return _KNOWN[module_name, global_name]
        except KeyError:
            raise _ForbiddenNameError(f"{module_name}.{global_name}") from None


def _check_memory(content: bytes) -> None:
    """Check that unpickling takes no more memory than its content warrants.

    The unpickler makes room for whatever number a value is to be remembered under.
    """
    for operation, argument, _ in pickletools.genops(content):
        if "PUT" in operation.name and int(str(argument)) > len(content):
            raise ValueError(f"a value remembered under the number {argument}")


def _image_name(key: object) -> str:
    if isinstance(key, str):
        return key
    if isinstance(key, int):  # 2007_000032 is also spread as the number 2007000032
        digits = str(key)
        return f"{digits[:4]}_{digits[4:]}"
    raise ValueError(f"a key of type {type(key).__name__}")


def _unpickle(data: bytes) -> dict[Any, Any]:
    header = _HEADER.match(data)
    if header is None:
        raise ValueError("a NumPy file of something else, not a pickled dict")
    content = data[header.end() :]
    _check_memory(content)
    outer = _LabelUnpickler(io.BytesIO(content)).load()
    items = outer.items() if isinstance(outer, _ArrayStandIn) else [outer]
    if len(items) != 1 or not isinstance(items[0], dict):
        raise ValueError("not one dict")
    return items[0]


def read_cls_labels(path: Path, classes: int) -> dict[str, tuple[int, ...]]:
    """Return image name -> ascending class positions (from 0) of a `cls_labels.npy`.

    Args:
        path: The file: a NumPy file around a pickled dict, image name (or the number it forms)
            -> vector of 0 and 1, one entry a class.
        classes: Expected length of the vectors.

    Raises:
        UserError: The file is missing, is something else, or its pickle asks for a function.
    """
    expected = f"a pickled dict, image name -> {classes} zeros and ones"
    try:
        table = _unpickle(path.read_bytes())
        labels: dict[str, tuple[int, ...]] = {}
        for key, value in table.items():
            name = _image_name(key)
            if not isinstance(value, _ArrayStandIn):
                raise ValueError(f"{name}: not an array")
            vector = value.numpy()
            if vector.shape != (classes,) or not np.isin(vector, (0, 1)).all():
                raise ValueError(f"{name}: {vector.size} values, or others than 0 and 1")
            labels[name] = tuple(int(position) for position in np.flatnonzero(vector))
    except _ForbiddenNameError as error:
        raise UserError(
            f"this file asks to call {error}, which a table of labels does not need",
            where=path,
            expected=expected,
            fix="do not trust this file; fetch cls_labels.npy from its source again",
        ) from None
    except FileNotFoundError:
        raise UserError("this file does not exist", where=path, expected=expected) from None
    except Exception as error:  # unpickling damaged bytes can raise anything
        raise UserError(
            f"cannot read this label file: {error}", where=path, expected=expected
        ) from None
    return labels
