"""PyTorch's pickles, read as plain values and tensors, with no more trust than that.

PyTorch executes nothing in them (`weights_only=True`), but it ignores the checksums of its own
files, unpacks whatever an archive claims to hold, and fails in many ways at what is damaged. So
the form of a file is looked at before PyTorch is, and all of its failures are one error.
"""

from __future__ import annotations

import pickle
import pickletools
import re
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from wsss.errors import UserError

_ZIP = b"PK\x03\x04"
_BLOCK = 1 << 20
# At the start of a file from before PyTorch 1.6: magic number, version, system, content.
_LEGACY_PICKLES = 4
# Constructors of any amount of memory, which PyTorch permits and no file of weights needs.
_MAKERS = ("bytearray", "Tensor", "UntypedStorage")
# Tensors may share what is stored; a file of weights does not share everything many times.
_SHARING = 8
# Bytes of a TorchScript's source; that of the largest CLIP is far below one million.
_MOST_SOURCE = 1 << 26


class _Unfit(Exception):
    """What is wrong with the form of a file."""


def read_pickle(
    path: Path, *, what: str, fix: str, if_more: str | None = None, mapped: bool = False
) -> Any:
    """Read what `torch.save` wrote, on the CPU, without executing anything in it.

    Args:
        path: The file.
        what: What it is, for messages.
        fix: What to do where it is damaged.
        if_more: What to do where it holds more than tensors and plain values; None: `fix`.
        mapped: Leave the values of an archive on the disk, for who asks for shapes alone; its
            checksums, and whether the values are all there, are not looked at then.

    Returns:
        Nested mappings and lists of tensors and plain values, as they were saved.

    Raises:
        UserError: It is damaged, holds more than tensors and plain values, or claims to hold more
            than its size can.
    """
    try:
        mapped = mapped and zipfile.is_zipfile(path)
        _check_form(path, values=not mapped)
        with warnings.catch_warnings(), torch.device("cpu"):
            # Files of PyTorch's first versions, which are as good as others.
            warnings.simplefilter("ignore")
            loaded: Any = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
        if not mapped:
            _check_sizes(loaded, path.stat().st_size)
    except (UserError, torch.OutOfMemoryError):
        raise
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{what} cannot be read: PyTorch refuses it as plain weights: {_first_line(error)}",
            where=path,
            expected="a pickle of tensors and plain values (weights_only=True)",
            fix=if_more or fix,
        ) from None
    except Exception as error:
        # Whatever unpickling meets in damaged bytes: no list of kinds would be complete.
        raise UserError(
            f"{what} cannot be read: it is damaged or something else ({_first_line(error)})",
            where=path,
            fix=fix,
        ) from None
    return loaded


def _first_line(error: Exception) -> str:
    # PyTorch prints parts of its messages bold.
    lines = re.sub(r"\x1b\[[0-9;]*m", "", str(error)).strip().splitlines()
    text = lines[0][:300] if lines else ""
    return text if isinstance(error, _Unfit) else f"{type(error).__name__}: {text}".rstrip(": ")


def _check_form(path: Path, *, values: bool) -> None:
    """Look at a file, with `values` at all that an archive holds, before it is unpickled.

    Raises:
        _Unfit: A part is compressed or damaged, or it calls for what is no tensor.
    """
    with open(path, "rb") as handle:
        if handle.read(len(_ZIP)) == _ZIP:
            _check_archive(path, values=values)
            return
        handle.seek(0)
        for _ in range(_LEGACY_PICKLES):
            _check_calls(handle)


def check_torchscript(path: Path, *, what: str, fix: str) -> None:
    """Look at an archive of TorchScript, whose source texts are compressed, before it is read.

    Args:
        path: The file.
        what: What it is, for messages.
        fix: What to do where it is damaged.

    Raises:
        UserError: A part is damaged, or they claim to be much more than the file.
    """
    try:
        _check_archive(path, compressed=_MOST_SOURCE)
    except Exception as error:
        raise UserError(
            f"{what} cannot be read: it is damaged or something else ({_first_line(error)})",
            where=path,
            fix=fix,
        ) from None


def _check_archive(path: Path, *, compressed: int = 0, values: bool = True) -> None:
    """Check the parts of an archive, which may inflate by `compressed` bytes at most."""
    size = path.stat().st_size
    with zipfile.ZipFile(path) as archive:
        parts = archive.infolist()
        stated = sum(part.file_size for part in parts)
        packed = any(part.compress_type != zipfile.ZIP_STORED for part in parts)
        if stated > size + compressed or (packed and not compressed):
            raise _Unfit(f"it is compressed or damaged: {size} bytes claim to hold {stated}")
        for part in parts:
            with archive.open(part) as handle:
                # Reading to the end checks the part's checksum, which PyTorch does not do.
                while values and handle.read(_BLOCK):
                    pass
            if part.filename.endswith("data.pkl"):
                with archive.open(part) as handle:
                    _check_calls(handle)


def _check_calls(handle: IO[bytes]) -> None:
    for operation, argument, _ in pickletools.genops(handle):
        if operation.name == "GLOBAL" and str(argument).endswith(_MAKERS):
            raise _Unfit(f"it calls {str(argument).replace(' ', '.')}, which no weights need")


def _check_sizes(loaded: Any, size: int) -> None:
    """Check that tensors are no larger than what is stored of them."""
    total = 0
    for tensor in _tensors(loaded):
        if tensor.layout != torch.strided or tensor.device.type == "meta":
            continue  # whoever wants it says that it is of no use
        own = tensor.numel() * tensor.element_size()
        if own > tensor.untyped_storage().nbytes():
            raise _Unfit(f"a tensor of shape {tuple(tensor.shape)} is larger than what is stored")
        total += own
    if total > _SHARING * size:
        raise _Unfit(f"its tensors are {total} bytes, and the file has {size}")


def _tensors(loaded: Any) -> Iterator[Tensor]:
    waiting, seen = [loaded], set()
    while waiting:
        value = waiting.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, Mapping):
            waiting.extend(value.values())
        elif isinstance(value, (list, tuple, set)):
            waiting.extend(value)
