"""The images of an index: in arrays, as there may be a million; objects only while looked at."""

from __future__ import annotations

from array import array
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar, overload

import numpy as np
import numpy.typing as npt

from wsss.runtime.names import NamedMapping, Names, Positions

Mask = npt.NDArray[np.bool_]
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """One image: name without suffix, sets, tags, size in pixels, path relative to the root."""

    name: str
    sets: tuple[str, ...]
    tags: tuple[str, ...]
    width: int
    height: int
    path: str


class Codes(list[_T]):
    """The different values of a column, by their codes: 0, 1, ..."""

    def __init__(self) -> None:
        super().__init__()
        self._codes: dict[_T, int] = {}

    def code(self, value: _T) -> int:
        """Return the code of a value."""
        found = self._codes.setdefault(value, len(self))
        if found == len(self):
            self.append(value)
        return found


class Records(Sequence[ImageRecord]):
    """A list of records to which others are added at the end; equal to any list of the same.

    One takes 36 bytes, 4 a tag, and the characters of its name and path.

    Args:
        records: The first ones.
    """

    def __init__(self, records: Iterable[ImageRecord] = ()) -> None:
        self.names, self.paths = Names(), Names()
        self._sets: Codes[tuple[str, ...]] = Codes()
        self._tags: Codes[str] = Codes()
        self._set_codes, self._tag_codes = array("i"), array("i")
        self._tag_ends = array("q", [0])
        self._widths, self._heights = array("i"), array("i")
        for record in records:
            self.append(record)

    def append(self, record: ImageRecord) -> None:
        """Add a record at the end."""
        self.names.append(record.name)
        self.paths.append(record.path)
        self._set_codes.append(self._sets.code(record.sets))
        self._tag_codes.extend(map(self._tags.code, record.tags))
        self._tag_ends.append(len(self._tag_codes))
        self._widths.append(record.width)
        self._heights.append(record.height)

    def __len__(self) -> int:
        return len(self.names)

    @overload
    def __getitem__(self, place: int) -> ImageRecord: ...
    @overload
    def __getitem__(self, place: slice) -> Records: ...
    def __getitem__(self, place: int | slice) -> ImageRecord | Records:
        if isinstance(place, slice):
            return self.take(np.arange(len(self))[place])
        position = place + len(self) if place < 0 else place
        if not 0 <= position < len(self):
            raise IndexError("there is no such image")
        return ImageRecord(
            self.names[position],
            self._sets[self._set_codes[position]],
            self._tags_at(position),
            self._widths[position],
            self._heights[position],
            self.paths[position],
        )

    def _tags_at(self, position: int) -> tuple[str, ...]:
        codes = self._tag_codes[self._tag_ends[position] : self._tag_ends[position + 1]]
        return tuple(self._tags[code] for code in codes)

    def __iter__(self) -> Iterator[ImageRecord]:
        return (self[position] for position in range(len(self)))

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Sequence) and not isinstance(other, str):
            return len(self) == len(other) and all(a == b for a, b in zip(self, other, strict=True))
        return NotImplemented

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"<{len(self)} records>"

    def take(self, chosen: Positions | Mask) -> Records:
        """Return some of them: at positions, in that order, or where a (N,) mask is true."""
        is_mask = chosen.dtype == np.bool_
        positions: Positions = np.flatnonzero(chosen) if is_mask else chosen.astype(np.int64)
        taken = Records()
        taken.names, taken.paths = self.names.take(positions), self.paths.take(positions)
        taken._sets, taken._tags = self._sets, self._tags
        ends = np.frombuffer(self._tag_ends, np.int64)
        starts, lengths = ends[positions], self.tag_counts[positions]
        after = np.cumsum(lengths)
        total = int(after[-1]) if len(after) else 0
        places = np.arange(total) + np.repeat(starts - (after - lengths), lengths)
        taken._tag_codes = _picked(self._tag_codes, places)
        taken._tag_ends.frombytes(after.astype(np.int64).tobytes())
        taken._set_codes = _picked(self._set_codes, positions)
        taken._widths = _picked(self._widths, positions)
        taken._heights = _picked(self._heights, positions)
        return taken

    def by_name(self) -> Records:
        """Return all of them in the order of their names."""
        if self.names.ascending:
            return self
        taken = self.take(self.names.order())
        taken.names = self.names.in_order()
        return taken

    @property
    def tag_counts(self) -> npt.NDArray[np.int64]:
        """How many tags each has, (N,)."""
        ends = np.frombuffer(self._tag_ends, np.int64)
        counts: npt.NDArray[np.int64] = ends[1:] - ends[:-1]
        return counts

    @property
    def tagged(self) -> Mask:
        """Which of them have tags, (N,)."""
        return self.tag_counts > 0

    @property
    def sets(self) -> frozenset[str]:
        """The sets in which any of them is."""
        codes = np.unique(np.frombuffer(self._set_codes, np.intc))
        return frozenset(name for code in codes for name in self._sets[code])

    def in_sets(self, names: Collection[str]) -> Mask:
        """Return which of them are in one of these sets, (N,)."""
        wanted = np.array([not set(names).isdisjoint(sets) for sets in self._sets], dtype=np.bool_)
        return wanted[np.frombuffer(self._set_codes, np.intc)] if len(self) else np.zeros(0, bool)

    def multi_hot(self, classes: Sequence[str]) -> npt.NDArray[np.float32]:
        """Return (N, C) float32: 1 where the image has the tag, 0 elsewhere."""
        table = np.zeros((len(self), len(classes)), dtype=np.float32)
        # -1, which nothing may have, for what only records elsewhere are tagged with.
        place = {name: position for position, name in enumerate(classes)}
        columns = np.array([place.get(name, -1) for name in self._tags], dtype=np.int64)
        codes = np.frombuffer(self._tag_codes, np.intc)
        if len(codes):
            if columns[codes].min() < 0:
                unknown = self._tags[codes[columns[codes].argmin()]]
                raise KeyError(unknown)
            table[np.repeat(np.arange(len(self)), self.tag_counts), columns[codes]] = 1
        return table

    def sizes(self) -> npt.NDArray[np.int32]:
        """Return (N, 2) int32: height and width of each in pixels."""
        sides = (np.frombuffer(each, np.intc) for each in (self._heights, self._widths))
        return np.stack(list(sides), axis=1) if len(self) else np.zeros((0, 2), np.int32)


class Sizes(NamedMapping[tuple[int, int]]):
    """(H, W) in pixels of images, by their names.

    Args:
        records: The images.
    """

    def __init__(self, records: Records) -> None:
        super().__init__(records.names)
        self._sides = records.sizes()

    def _at(self, position: int) -> tuple[int, int]:
        height, width = self._sides[position].tolist()
        return height, width


def _picked(values: array[int], positions: Positions) -> array[int]:
    found = array("i")
    found.frombytes(np.frombuffer(values, np.intc)[positions].tobytes() if len(values) else b"")
    return found
