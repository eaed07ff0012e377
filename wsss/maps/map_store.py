"""The map store: per-image class maps (CAMs, walked CAMs) in one HDF5 file.

Layout, readable with plain h5py:

- file attributes: `format` ("wsss-maps"), `format_version`, `classes` (names without background),
  `upsampling`, and whatever the writing stage adds (configuration hash, code hash, ...);
- `/maps/<name>`: (K, h, w) float16, chunked by map, shuffled and gzipped, with attributes
  `classes` (K int64 positions in the class list) and `size` (H, W of the image).

Names are percent-encoded where they hold a slash, since HDF5 reads that as a group.
"""

from __future__ import annotations

import os
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from urllib.parse import quote, unquote

import h5py
import numpy as np

from wsss.errors import UserError
from wsss.files import atomic_file
from wsss.maps.hdf5_sink import Hdf5Sink
from wsss.maps.store_checks import (
    Unsound,
    check_form,
    checked_maps,
    class_list,
    damaged,
    maps_group,
    open_error,
)
from wsss.runtime.names import Names

FORMAT = "wsss-maps"
FORMAT_VERSION = 1
# Level 1 is within 3 % of level 9's size on CAMs and several times faster.
GZIP_LEVEL = 1
# HDF5 keeps some kilobytes of every data set it has opened or made until the file is closed. Closed
# and opened again after so many images, readers and the writer stay flat in memory (10 MB more,
# however many images), for a millisecond now and then.
RENEW_AFTER = 1000

Attribute = str | int | float


def map_size(height: int, width: int) -> tuple[int, int]:
    """Return the stored size ((H-1)//4+1, (W-1)//4+1) of an H x W image: stride 4."""
    return (height - 1) // 4 + 1, (width - 1) // 4 + 1


@dataclass(frozen=True)
class StoredMaps:
    """Maps of one image.

    Attributes:
        class_indices: (K,) int64, positions in the class list (background not counted).
        maps: (K, h, w) float32.
        size: (H, W) of the image in pixels.
    """

    class_indices: np.ndarray
    maps: np.ndarray
    size: tuple[int, int]


def _key(name: str) -> str:
    return quote(name, safe=" ()[]{}+,;=@!$&'")


def _on_disk(file: h5py.File) -> os.stat_result:
    """Return what identifies the file that is open, whatever its name stands for by now."""
    return os.fstat(file.id.get_vfd_handle())


def _note(names: Names, key: bytes) -> None:
    if not key.isascii():
        raise Unsound("names that wsss never writes")
    names.append(unquote(key.decode("ascii")))


@contextmanager
def _whole(path: Path, what: str) -> Iterator[None]:
    """Raise whatever HDF5 meets in a damaged file as an error that names the file."""
    try:
        yield
    except (UserError, MemoryError):
        raise
    except Exception as error:
        raise damaged(path, what, error) from None


class MapStoreWriter:
    """Writes a store that appears under its name only when complete.

    Add images in a fixed order: same images, order and attributes give the same bytes.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        classes: Sequence[str],
        attributes: Mapping[str, Attribute],
        upsampling: str = "resize",
    ) -> None:
        self._path = Path(path)
        self._classes = tuple(classes)
        self._attributes = {**attributes, "upsampling": upsampling}

    def __enter__(self) -> MapStoreWriter:
        self._stack = ExitStack()
        temporary = self._stack.enter_context(atomic_file(self._path))
        self._sink = self._stack.enter_context(Hdf5Sink(temporary))
        self._file = h5py.File(self._sink, "w", libver="latest")
        self._stack.callback(self._close)
        self._added = 0
        self._file.attrs["format"] = FORMAT
        self._file.attrs["format_version"] = FORMAT_VERSION
        self._file.attrs["classes"] = np.array(self._classes, dtype=h5py.string_dtype())
        for key in sorted(self._attributes):
            self._file.attrs[key] = self._attributes[key]
        self._group = self._file.create_group("maps")
        return self

    def add(
        self, name: str, class_indices: Sequence[int], maps: np.ndarray, size: tuple[int, int]
    ) -> None:
        """Append one image: `maps` (K, h, w) of any float type, kept as float16."""
        if maps.ndim != 3 or len(class_indices) != maps.shape[0]:
            raise ValueError(f"{name}: {len(class_indices)} classes, maps of shape {maps.shape}")
        if not np.isfinite(maps).all():
            raise UserError(
                f"the maps of image {name!r} are not finite",
                where=self._path,
                fix="the network diverged: lower its learning rate and train again",
            )
        filters = {"compression": "gzip", "compression_opts": GZIP_LEVEL, "shuffle": True}
        data = self._group.create_dataset(
            _key(name),
            data=maps.astype(np.float16),
            chunks=(1, *maps.shape[1:]) if maps.size else None,
            **(filters if maps.size else {}),
        )
        data.attrs["classes"] = np.asarray(class_indices, np.int64)
        data.attrs["size"] = np.asarray(size, np.int64)
        self._sink.check()
        self._added += 1
        if self._added % RENEW_AFTER == 0:
            self._close()
            self._sink.check()
            self._file = h5py.File(self._sink, "r+", libver="latest")
            self._group = self._file["maps"]

    def _close(self) -> None:
        self._file.close()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        return self._stack.__exit__(kind, error, traceback)


class MapStore:
    """Reads one store, or several shards as one; for one thread at a time.

    Raises:
        UserError: A file is missing, damaged, or of another format, or shards disagree.
    """

    def __init__(self, paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str]]) -> None:
        several = [paths] if isinstance(paths, (str, os.PathLike)) else list(paths)
        self._paths = [Path(path) for path in several]
        self._files: list[h5py.File] = []
        self._groups: list[h5py.Group] = []
        self._reads = 0
        # In which of the files the maps of each image are, in the order of the names.
        self._where = array("i")
        try:
            self._open_all()
            self._describe()
        except BaseException:
            self.close()
            raise

    def _describe(self) -> None:
        """Read which images there are, and what the files say of themselves."""
        lists: list[tuple[str, ...]] = []
        names, where = Names(), array("i")
        for number, (path, file, group) in enumerate(
            zip(self._paths, self._files, self._groups, strict=True)
        ):
            with _whole(path, "this map store"):
                # As `for key in group`, which holds all of them at once.
                group.id.links.iterate(partial(_note, names))
                where.extend(array("i", [number]) * (len(names) - len(where)))
                lists.append(class_list(file))
        if lists.count(lists[0]) < len(lists):
            other = next(i for i, classes in enumerate(lists) if classes != lists[0])
            raise UserError("shards of different class lists", where=self._paths[other])
        if not names.ascending:
            chosen = names.last_of_each()
            names = names.take(chosen)
            names.ascending = True
            where = array("i", np.frombuffer(where, np.intc)[chosen].tobytes())
        self.names, self._where = names, where
        with _whole(self._paths[0], "this map store"):
            self.classes = lists[0]
            self.attributes: dict[str, Attribute] = {
                key: value.item() if isinstance(value, np.generic) else value
                for key, value in self._files[0].attrs.items()
                if key != "classes"
            }
            self.upsampling = str(self.attributes["upsampling"])

    def _open_all(self) -> None:
        self.close()
        for path in self._paths:
            self._files.append(self._open(path))
            with _whole(path, "this map store"):
                self._groups.append(maps_group(self._files[-1]))

    def _renew(self) -> None:
        """Close the files and open them again, the same ones."""
        before = [_on_disk(file) for file in self._files]
        self._open_all()
        for path, file, then in zip(self._paths, self._files, before, strict=True):
            if not os.path.samestat(_on_disk(file), then):
                raise UserError(
                    "this map store was replaced while it was read",
                    where=path,
                    fix="start again, when the stage that writes it has ended",
                )

    @staticmethod
    def _open(path: Path) -> h5py.File:
        if not path.exists():
            raise UserError("this map store does not exist", where=path)
        check_form(path)
        try:
            # Nobody writes to a store that has its name; and not every file system has locks.
            file = h5py.File(path, "r", locking=False)
        except Exception as error:
            raise open_error(path, error) from None
        try:
            with _whole(path, "this map store"):
                found = (file.attrs.get("format"), file.attrs.get("format_version"))
                ours = bool(
                    np.array_equal(found[0], FORMAT) and np.array_equal(found[1], FORMAT_VERSION)
                )
        except UserError:
            file.close()
            raise
        if not ours:
            file.close()
            raise UserError(
                f"this HDF5 file is not a map store of this version: {str(found)[:200]}",
                where=path,
                expected=f"format {FORMAT!r}, version {FORMAT_VERSION}",
                fix="run the stage that writes it again",
            )
        return file

    def read(self, name: str, size: tuple[int, int] | None = None) -> StoredMaps:
        """Return the maps of one image as float32.

        Args:
            name: The image.
            size: (H, W) of it in pixels, where that is known: maps of another size are refused
                before they are read.

        Raises:
            UserError: The store has none of this name, is damaged, or was replaced meanwhile.
        """
        position = self._where[self._place(name)]
        self._reads += 1
        if self._reads % RENEW_AFTER == 0:
            self._renew()
        group = self._groups[position]
        with _whole(self._paths[position], f"the maps of image {name!r}"):
            data, indices, stored = checked_maps(
                group, _key(name), n_classes=len(self.classes), size=size
            )
            return StoredMaps(indices, np.asarray(data[()], np.float32), stored)

    def _place(self, name: str) -> int:
        place = self.names.position(name)
        if place is None:
            raise UserError(
                f"image {name!r} has no maps",
                where=", ".join(map(str, self._paths)),
                fix="the store belongs to another index: run the stage that writes it again",
            )
        return place

    def keep(self, names: Iterable[str]) -> None:
        """Know no other images any more, of which there may be a million.

        Raises:
            UserError: The store has none of one of these names.
        """
        chosen = np.unique(np.fromiter(map(self._place, names), np.int64))
        self.names = self.names.take(chosen)
        self.names.ascending = True
        self._where = array("i", np.frombuffer(self._where, np.intc)[chosen].tobytes())

    def close(self) -> None:
        """Close the files."""
        for file in self._files:
            # Closing a file that is damaged may fail, too; nothing is lost by that.
            with suppress(Exception):
                file.close()
        self._files, self._groups = [], []

    def __enter__(self) -> MapStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def upsample(maps: np.ndarray, size: tuple[int, int], how: str) -> np.ndarray:
    """Bring stored maps (K, h, w) to image size, bilinear, half-pixel centres.

    Args:
        maps: (K, h, w) float32.
        size: (H, W) of the image.
        how: The store's `upsampling`: "resize" stretches to `size`, "times4" enlarges exactly
            four times and crops, as IRN does after its walk.

    Returns:
        (K, H, W) float32.
    """
    if maps.shape[0] == 0:
        return np.zeros((0, *size), np.float32)
    # Here, so that what only reads or writes a store starts without it. Nothing else enlarges to
    # the same last bits, which follow the instructions of the machine.
    import torch
    import torch.nn.functional as F

    tensor = torch.from_numpy(np.ascontiguousarray(maps, dtype=np.float32))[None]
    if how == "resize":
        big = F.interpolate(tensor, size=size, mode="bilinear", align_corners=False)
    elif how == "times4":
        big = F.interpolate(tensor, scale_factor=4, mode="bilinear", align_corners=False)
    else:
        raise UserError(f"unknown upsampling {how!r}", expected='"resize" or "times4"')
    return big[0, :, : size[0], : size[1]].contiguous().numpy()
