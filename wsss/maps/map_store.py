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
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from urllib.parse import quote, unquote

import h5py
import numpy as np

from wsss.errors import UserError
from wsss.files import atomic_file
from wsss.maps.hdf5_sink import Hdf5Sink

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


def _damaged(path: object, what: str, error: Exception) -> UserError:
    return UserError(
        f"{what} cannot be read ({error})",
        where=path,
        expected="a complete HDF5 file",
        fix=f"delete it (rm {path}) and start again: the stage that writes it runs again",
    )


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
        self._open_all()
        # By image, in which of the files its maps are.
        self._where = {unquote(key): i for i, group in enumerate(self._groups) for key in group}
        self.names: list[str] = sorted(self._where)
        first = self._files[0]
        self.classes: tuple[str, ...] = tuple(str(c) for c in first.attrs["classes"])
        self.attributes: dict[str, Attribute] = {
            key: value.item() if isinstance(value, np.generic) else value
            for key, value in first.attrs.items()
            if key != "classes"
        }
        self.upsampling = str(self.attributes["upsampling"])
        for file, path in zip(self._files[1:], self._paths[1:], strict=True):
            if tuple(file.attrs["classes"]) != self.classes:
                raise UserError("shards of different class lists", where=path)

    def _open_all(self) -> None:
        self.close()
        self._files = [self._open(path) for path in self._paths]
        self._groups = [file["maps"] for file in self._files]

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
        try:
            file = h5py.File(path, "r")
        except OSError as error:
            raise _damaged(path, "this map store", error) from None
        if file.attrs.get("format") != FORMAT or file.attrs.get("format_version") != FORMAT_VERSION:
            found = (file.attrs.get("format"), file.attrs.get("format_version"))
            file.close()
            raise UserError(
                f"this HDF5 file is not a map store of this version: {found}",
                where=path,
                expected=f"format {FORMAT!r}, version {FORMAT_VERSION}",
                fix="run the stage that writes it again",
            )
        return file

    def read(self, name: str) -> StoredMaps:
        """Return the maps of one image as float32.

        Raises:
            UserError: The store has none of this name, is damaged, or was replaced meanwhile.
        """
        position = self._where.get(name)
        if position is None:
            raise UserError(
                f"image {name!r} has no maps",
                where=", ".join(map(str, self._paths)),
                fix="the store belongs to another index: run the stage that writes it again",
            )
        self._reads += 1
        if self._reads % RENEW_AFTER == 0:
            self._renew()
        group = self._groups[position]
        try:
            data = group[_key(name)]
            height, width = (int(v) for v in data.attrs["size"])
            indices = np.asarray(data.attrs["classes"], np.int64)
            return StoredMaps(indices, np.asarray(data[()], np.float32), (height, width))
        except (OSError, RuntimeError, KeyError) as error:
            raise _damaged(group.file.filename, f"the maps of image {name!r}", error) from None

    def close(self) -> None:
        """Close the files."""
        for file in self._files:
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
