"""Maps with classes that another program has made, one a picture and class, or as labels."""

from __future__ import annotations

import lzma
import tokenize
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.lib.format as npy
import numpy.typing as npt
from PIL import Image

from wsss.data.images import read_class_label
from wsss.data.index import ImageRecord
from wsss.errors import UserError, listed
from wsss.files import is_below
from wsss.maps.map_store import map_size

Maps = npt.NDArray[np.float32]
_LARGEST = {"uint8": 255, "uint16": 65535}
_MODES = ("1", "L", "I;16", "I")
_SHOWN = 8
_Sizes = tuple[tuple[int, int], tuple[int, int]]
# What `zipfile` and NumPy raise at archives that are damaged.
_DAMAGED = (
    *(zipfile.BadZipFile, OSError, RuntimeError, EOFError, KeyError, ValueError, TypeError),
    *(SyntaxError, tokenize.TokenError, zlib.error, lzma.LZMAError),
)


def require_pictures(missing: Sequence[str], total: int, *, folder: Path, expected: str) -> None:
    """Check that every picture has what it needs.

    Raises:
        UserError: Some have not; the message names some of them.
    """
    if missing:
        raise UserError(
            f"{len(missing)} of {total} are not here: {listed(missing, _SHOWN)}",
            where=folder,
            expected=expected,
            fix="make them for every picture that is trained on or that seeds are scored on",
        )


def below(folder: Path, name: str) -> Path:
    """Return where a file of the folder lies.

    Raises:
        UserError: The name leads out of the folder.
    """
    if not is_below(name):
        raise UserError(
            f"{name!r} leads out of the folder of maps", where=folder, expected="a file below it"
        )
    return folder / name


@dataclass(frozen=True)
class ClassMaps:
    """Maps of one class each: `NAME/CLASS.png`, or arrays by class name in `NAME.npz`.

    Values are 0 to 1, whole numbers of 8 or 16 bits a share of the largest; truth values 0 or 1.

    Attributes:
        folder: Where they lie.
        classes: Names, background not among them.
    """

    folder: Path
    classes: tuple[str, ...]

    def check(self, records: Sequence[ImageRecord]) -> None:
        """Check that every picture has a map of each of its tags, and none of an unknown class.

        Raises:
            UserError: Maps are missing, or are of a class that there is not.
        """
        missing = [
            f"{record.name} ({', '.join(lacking)})"
            for record in records
            if (lacking := [tag for tag in record.tags if tag not in set(self._names(record))])
        ]
        expected = "NAME/CLASS.png for each of a picture's tags, or NAME.npz with an array a tag"
        require_pictures(missing, len(records), folder=self.folder, expected=expected)

    def read(self, record: ImageRecord, tags: Sequence[str]) -> Maps:
        """Return (K, h, w) float32 in 0..1, of the picture's size or of the map store's.

        Raises:
            UserError: A map is damaged, of another size, or not in 0..1.
        """
        archive = self._archive(record)
        maps = []
        for tag in tags:
            sizes = (record.height, record.width), map_size(record.height, record.width)
            if archive.is_file():
                place = f"{archive}, {tag}"
                values = _array(archive, tag, sizes)
            else:
                path = below(self.folder, f"{record.name}/{tag}.png")
                place, values = str(path), _grey(path, sizes)
            maps.append(_shares(values, place))
        if len({each.shape for each in maps}) > 1:
            raise UserError("the maps of this picture are of two sizes", where=record.name)
        return np.stack(maps)

    def _archive(self, record: ImageRecord) -> Path:
        return below(self.folder, f"{record.name}.npz")

    def _names(self, record: ImageRecord) -> Iterator[str]:
        archive = self._archive(record)
        if archive.is_file():
            names: Iterable[str] = _names_of(archive)
        else:
            folder = below(self.folder, record.name)
            names = sorted(path.stem for path in folder.glob("*.png") if path.name[0] != ".")
        for name in names:
            if name not in self.classes:
                raise UserError(
                    f"a map of the class {name!r}, which is none of this data set's",
                    where=archive if archive.is_file() else self.folder / record.name,
                    expected="one of " + ", ".join(self.classes),
                )
            yield name


@dataclass(frozen=True)
class LabelMaps:
    """Label maps, `NAME.png`: 0 background, a class's place in the list + 1, 255 not sure.

    Attributes:
        folder: Where they lie.
        classes: Names, background not among them.
    """

    folder: Path
    classes: tuple[str, ...]

    def check(self, records: Sequence[ImageRecord]) -> None:
        """Check that every picture has one.

        Raises:
            UserError: Some have none.
        """
        missing = [r.name for r in records if not below(self.folder, f"{r.name}.png").is_file()]
        require_pictures(missing, len(records), folder=self.folder, expected="NAME.png each")

    def read(self, record: ImageRecord, tags: Sequence[str]) -> Maps:
        """Return (K, H, W) float32, 1 where the label is the tag's; other labels count for nothing.

        Raises:
            UserError: It is no label map, of another size, or has a label of no class.
        """
        path = below(self.folder, f"{record.name}.png")
        label = read_class_label(path, (record.height, record.width), len(self.classes) + 1)
        wanted = np.array([self.classes.index(tag) + 1 for tag in tags])[:, None, None]
        return np.asarray(label == wanted, dtype=np.float32)


def _size(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, reversed(shape))) + " px" if shape else "one value"


def _check_size(shape: tuple[int, ...], sizes: _Sizes, place: object) -> None:
    """Check the size of a map before memory is taken for it."""
    if shape not in sizes:
        raise UserError(
            f"this map has {_size(shape)}",
            where=place,
            expected=f"{_size(sizes[0])}, the picture's, or a fourth, {_size(sizes[1])}",
        )


def _grey(path: Path, sizes: _Sizes) -> npt.NDArray[np.generic]:
    try:
        with Image.open(path, formats=("PNG",)) as image:
            _check_size(image.size[::-1], sizes, path)
            mode = image.mode
            values = np.array(image)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(f"cannot read this map: {error}", where=path) from None
    if mode not in _MODES:
        raise UserError(
            f"this map is a picture of mode {mode!r}", where=path, expected="grey, 1, 8 or 16 bits"
        )
    return values.astype(np.uint16) if mode == "I" and values.min() >= 0 else values


def _names_of(archive: Path) -> list[str]:
    try:
        with zipfile.ZipFile(archive) as file:
            return [name.removesuffix(".npy") for name in file.namelist()]
    except _DAMAGED as error:
        raise _no_archive(archive, error) from None


def _array(archive: Path, name: str, sizes: _Sizes) -> npt.NDArray[np.generic]:
    try:
        with zipfile.ZipFile(archive) as file:
            with file.open(f"{name}.npy") as part:
                version = npy.read_magic(part)
                read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
                shape, _, kind = read(part)
                if not kind.hasobject:  # which is refused as such
                    _check_size(shape, sizes, f"{archive}, {name}")
            with file.open(f"{name}.npy") as part:
                return np.asarray(npy.read_array(part, allow_pickle=False))
    except _DAMAGED as error:
        raise _no_archive(archive, error) from None


def _no_archive(archive: Path, error: Exception) -> UserError:
    return UserError(
        f"cannot read this archive of maps: {error}",
        where=archive,
        expected="what numpy.savez makes of arrays of numbers, one a class by its name",
    )


def _shares(values: npt.NDArray[np.generic], place: str) -> Maps:
    """Return values as shares of the largest possible."""
    kind = str(values.dtype)
    if values.dtype.kind in "bf":
        shares = values.astype(np.float32)
        if not (np.isfinite(shares).all() and shares.min() >= 0 and shares.max() <= 1):
            raise UserError(
                f"this map has values from {shares.min():g} to {shares.max():g}",
                where=place,
                expected="0 to 1",
                fix="divide it by what its values are a share of",
            )
        return shares
    if kind not in _LARGEST:
        raise UserError(
            f"this map is of type {kind}", where=place, expected="bool, uint8, uint16 or float"
        )
    if int(values.max()) == 1:
        raise UserError(
            f"this map holds nothing but 0 and 1, as {kind}, whose largest value is "
            f"{_LARGEST[kind]}",
            where=place,
            expected=f"0 and {_LARGEST[kind]}, or truth values",
        )
    return np.asarray(values.astype(np.float32) / np.float32(_LARGEST[kind]))
