"""The field's `cls_labels.npy`, a pickled dict of label vectors, read without running it.

A pickle can call any importable function. Here only the few names that a dict of NumPy arrays
needs are known.
"""

from __future__ import annotations

import io
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np

from wsss.errors import UserError


def _bytes(text: str, encoding: str) -> bytes:
    # How protocol 2 spells bytes; the real function would take any codec.
    if encoding != "latin1":
        raise ValueError(f"bytes in the encoding {encoding!r}")
    return text.encode("latin1")


_CORE = "numpy._core" if int(np.__version__.split(".")[0]) > 1 else "numpy.core"
_KNOWN = {
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    (f"{_CORE}.multiarray", "_reconstruct"),
    (f"{_CORE}.multiarray", "scalar"),
    (f"{_CORE}.numeric", "_frombuffer"),
}


class _ForbiddenNameError(Exception):
    """The pickle asks for something that a table of labels does not need."""


class _LabelUnpickler(pickle.Unpickler):
    def find_class(self, module_name: str, global_name: str) -> Any:
        if (module_name, global_name) == ("_codecs", "encode"):
            return _bytes
        # As this NumPy calls it, whichever wrote the file.
        own = re.sub(r"^numpy\._?core\b", _CORE, module_name)
        if (own, global_name) not in _KNOWN:
            raise _ForbiddenNameError(f"{module_name}.{global_name}")
        return super().find_class(own, global_name)


def _image_name(key: object) -> str:
    if isinstance(key, str):
        return key
    if isinstance(key, int):  # 2007_000032 is also spread as the number 2007000032
        digits = str(key)
        return f"{digits[:4]}_{digits[4:]}"
    raise ValueError(f"a key of type {type(key).__name__}")


def _unpickle(data: bytes) -> dict[Any, Any]:
    stream = io.BytesIO(data)
    version = np.lib.format.read_magic(stream)
    read_header = (
        np.lib.format.read_array_header_1_0
        if version == (1, 0)
        else np.lib.format.read_array_header_2_0
    )
    _, _, dtype = read_header(stream)
    if dtype != np.dtype(object):
        raise ValueError(f"an array of {dtype}, not a pickled dict")
    outer = _LabelUnpickler(stream).load()
    items = outer.reshape(-1).tolist() if isinstance(outer, np.ndarray) else [outer]
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
            vector = np.asarray(value)
            if vector.dtype.kind not in "biuf":
                raise ValueError(f"{name}: not an array of numbers")
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
