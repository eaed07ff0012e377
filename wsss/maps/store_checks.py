"""What a map store must look like before its content is asked for.

HDF5 takes a file's word: for how large an array is, how often compressed data are to be inflated,
in which other file they lie. And in its oldest form, which nobody here writes, nothing has a
checksum, so that a damaged tree can lead it round in circles. So the form is looked at first.
"""

from __future__ import annotations

import os
import re
import shlex
import struct
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from wsss.errors import UserError

_SIGNATURE = b"\x89HDF\r\n\x1a\n"
# Since version 2 of the superblock and of objects' headers, all that HDF5 itself writes of a file's
# structure has checksums.
_OLDEST = 2
# All but the texts of attributes, which lie in heaps at the start: they are written first.
_HEAP = re.compile(rb"GCOL\x01")
_HEAP_HEADER = 16
_TEXTS_END = 1 << 20
# Where no index says how large a picture is: 16384 x 16384 pixels, and 1 GB of maps of one.
MOST_PIXELS = 1 << 28
MOST_VALUES = 1 << 28
_MOST_CLASSES = 1 << 16
# How HDF5 says in the text of an error that a file is in use, and not broken.
_IN_USE = re.compile(r"unable to lock file|already open for (?:write|SWMR|read)")


class Unsound(Exception):
    """What is wrong with a part of a store."""


def check_form(path: Path) -> None:
    """Refuse a file that is no HDF5, or of HDF5's first form.

    Raises:
        UserError: It is, or cannot be read.
    """
    try:
        with open(path, "rb") as handle:
            start = handle.read(_TEXTS_END)
            length = os.fstat(handle.fileno()).st_size
    except OSError as error:
        raise open_error(path, error) from None
    if start[: len(_SIGNATURE)] != _SIGNATURE or len(start) <= len(_SIGNATURE):
        raise damaged(path, "this map store", "it does not begin as HDF5 does")
    if start[len(_SIGNATURE)] < _OLDEST:
        raise UserError(
            "this HDF5 file is not a map store that wsss wrote: its form is HDF5's oldest, "
            "without checksums",
            where=path,
            expected="a file with superblock 2 or later (h5py: libver='latest')",
            fix="run the stage that writes it again",
        )
    for heap in _HEAP.finditer(start):
        if not _heap_ends(start[heap.start() :], length - heap.start()):
            raise damaged(path, "this map store", "the texts in its attributes are broken")


def _heap_ends(heap: bytes, left: int) -> bool:
    """Say whether a walk along a global heap ends, where HDF5's own might go round in circles.

    Args:
        heap: The heap, as far as it was read.
        left: Bytes of the file from its start on.
    """
    (size,) = struct.unpack_from("<Q", heap, _HEAP_HEADER // 2) if len(heap) >= 16 else (0,)
    if not _HEAP_HEADER <= size <= left:
        return False
    place = _HEAP_HEADER
    while place + _HEAP_HEADER <= min(size, len(heap)):
        index, _, _, length = struct.unpack_from("<HHIQ", heap, place)
        # Number 0 is the free rest, whose length counts its own header.
        step = length if index == 0 else _HEAP_HEADER + (length + 7) // 8 * 8
        if not _HEAP_HEADER <= step <= size - place:
            return False
        place += step
    return True


_MADE = ("cams.h5", "walked.h5")


def damaged(path: object, what: str, reason: object) -> UserError:
    """Return the error for a store of which a part cannot be used."""
    # Whatever a person named may be anything: only what a stage writes is to be deleted.
    fix = (
        "name a map store that wsss wrote, such as results/RUN/cams.h5; copy it again if it is one"
    )
    if Path(str(path)).name in _MADE:
        place = shlex.quote(str(path))
        fix = (
            "delete it and have it made again; the stage that writes it runs again:  "
            f"rm {place} && snakemake --cores all {place}"
        )
    return UserError(
        f"{what} cannot be read ({str(reason)[:300]})",
        where=path,
        expected="a complete HDF5 file",
        fix=fix,
    )


def open_error(path: Path, error: Exception) -> UserError:
    """Return the error for a store that HDF5 does not open: in use, not permitted, or damaged."""
    if _IN_USE.search(str(error)):
        return UserError(
            "this map store is open for writing elsewhere, in a notebook, say, or was when that "
            "was killed",
            where=path,
            expected="a file that nobody writes; the file itself need not be damaged",
            fix=f"close it there and start again; if nobody has it open:  h5clear -s {path}  or, "
            "without that program, delete it, and its stage runs again",
        )
    if isinstance(error, PermissionError):
        return UserError(
            "this map store may not be read: permission denied",
            where=path,
            fix=f"ask its owner for the permission:  chmod a+r {path}",
        )
    return damaged(path, "this map store", error)


def hard_link(group: h5py.Group, key: str) -> None:
    """Refuse a name that stands for something in another file, or elsewhere in this one.

    Raises:
        Unsound: It does.
    """
    if not isinstance(group.get(key, getlink=True), h5py.HardLink):
        raise Unsound(f"{key} is a link, which wsss never writes")


def maps_group(file: h5py.File) -> h5py.Group:
    """Return the group with the maps.

    Raises:
        Unsound: There is none, or it lies elsewhere.
    """
    hard_link(file, "maps")
    group = file["maps"]
    if not isinstance(group, h5py.Group):
        raise Unsound("'maps' is no group")
    _checked_header(group)
    return group


def class_list(file: h5py.File) -> tuple[str, ...]:
    """Return the names of the classes.

    Raises:
        Unsound: It is no list of names.
    """
    about = file.attrs.get_id("classes")
    if len(about.shape) != 1 or about.shape[0] > _MOST_CLASSES:
        raise Unsound(f"a list of classes of shape {about.shape}")
    names = tuple(file.attrs["classes"])
    if not all(isinstance(name, str) for name in names):
        raise Unsound("a list of classes that are no texts")
    return names


def checked_maps(
    group: h5py.Group, key: str, *, n_classes: int, size: tuple[int, int] | None
) -> tuple[h5py.Dataset, Any, tuple[int, int]]:
    """Return the data set of an image, its class indices and size, before its maps are read.

    Args:
        group: The group with the maps.
        key: The image's name in it.
        n_classes: How many classes there are.
        size: (H, W) of the image where that is known.

    Raises:
        Unsound: It is no array of this file, or not of this image.
    """
    hard_link(group, key)
    data = group[key]
    if not isinstance(data, h5py.Dataset):
        raise Unsound("it is no array")
    _checked_header(data)
    if data.id.get_create_plist().get_external_count() or data.is_virtual:
        raise Unsound("its content lies in another file, which wsss never writes")
    if data.dtype.kind != "f" or data.dtype.itemsize > np.dtype(np.float64).itemsize:
        raise Unsound(f"maps of type {data.dtype}")
    indices, stored = _numbers(data, "classes"), _numbers(data, "size")
    if stored.shape != (2,):
        raise Unsound(f"a size of shape {stored.shape}")
    height, width = (int(side) for side in stored)
    if size is not None and (height, width) != size:
        raise Unsound(f"the picture has {size[1]} x {size[0]} pixels, its maps {width} x {height}")
    if not (height >= 1 and width >= 1 and height * width <= MOST_PIXELS):
        raise Unsound(f"a picture of {width} x {height} pixels")
    if indices.ndim != 1 or not ((indices >= 0) & (indices < n_classes)).all():
        raise Unsound("maps of classes that are not in the list")
    fits = data.ndim == 3 and data.shape[0] == len(indices)
    if not fits or data.shape[1] > height or data.shape[2] > width or data.size > MOST_VALUES:
        raise Unsound(
            f"maps of shape {data.shape} for {len(indices)} classes and {width} x {height} pixels"
        )
    chunk = data.chunks
    if chunk is not None and any(
        part > whole for part, whole in zip(chunk, data.shape, strict=True)
    ):
        raise Unsound(f"pieces of {chunk} in maps of shape {data.shape}")
    return data, indices, (height, width)


def _numbers(data: h5py.Dataset, name: str) -> Any:
    about = data.attrs.get_id(name)
    if about.dtype.kind not in "iu" or len(about.shape) != 1 or about.shape[0] > _MOST_CLASSES:
        raise Unsound(f"an attribute '{name}' of type {about.dtype}, shape {about.shape}")
    return np.asarray(data.attrs[name], np.int64)


def _checked_header(thing: h5py.Group | h5py.Dataset) -> None:
    if h5py.h5o.get_info(thing.id).hdr.version < _OLDEST:
        raise Unsound("a part of HDF5's oldest form, without checksums")
