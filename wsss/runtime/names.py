"""Names of a million pictures in one piece of memory, rather than in a million objects.

A `str` takes 50 bytes beside its characters, its place in a dict 100 more. Here a name takes 8
beside its characters (in UTF-8), and is found by bisection.
"""

from __future__ import annotations

from abc import abstractmethod
from array import array
from bisect import bisect_left
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import TypeVar, overload

import numpy as np
import numpy.typing as npt

V = TypeVar("V")
Positions = npt.NDArray[np.int64]
"""Positions in a list, in any order."""

# Names whose characters are copied at a time: each needs 8 bytes for a moment.
_PART = 1 << 13


class Names(Sequence[str]):
    """A list of texts to which others are added at the end; equal to any list of the same.

    Args:
        names: The first ones.

    Attributes:
        ascending: Whether each is larger than the one before it, so that none comes twice.
    """

    def __init__(self, names: Iterable[str] = ()) -> None:
        self._text = bytearray()
        self._ends = array("q", [0])
        self._order: Positions | None = None
        self._next = 0
        self.ascending = True
        for name in names:
            self.append(name)

    def append(self, name: str) -> None:
        """Add a text at the end."""
        # Of the same order as the text itself. File names can have halves of characters.
        added = name.encode("utf-8", "surrogatepass")
        if self.ascending and len(self) and added <= self._bytes(len(self) - 1):
            self.ascending = False
        self._text += added
        self._ends.append(len(self._text))
        self._order = None

    def _bytes(self, position: int) -> bytearray:
        return self._text[self._ends[position] : self._ends[position + 1]]

    def __len__(self) -> int:
        return len(self._ends) - 1

    @overload
    def __getitem__(self, place: int) -> str: ...
    @overload
    def __getitem__(self, place: slice) -> Names: ...
    def __getitem__(self, place: int | slice) -> str | Names:
        if isinstance(place, slice):
            return self.take(np.arange(len(self))[place])
        position = place + len(self) if place < 0 else place
        if not 0 <= position < len(self):
            raise IndexError("there is no such name")
        return self._bytes(position).decode("utf-8", "surrogatepass")

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Names):
            return self._text == other._text and self._ends == other._ends
        if isinstance(other, Sequence) and not isinstance(other, str):
            return len(self) == len(other) and all(a == b for a, b in zip(self, other, strict=True))
        return NotImplemented

    __hash__ = None  # type: ignore[assignment]

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self.position(name) is not None

    def __repr__(self) -> str:
        return f"<{len(self)} names>"

    def take(self, positions: Positions) -> Names:
        """Return the names at some positions, in that order."""
        taken = Names()
        ends, text = np.frombuffer(self._ends, np.int64), np.frombuffer(self._text, np.uint8)
        for start in range(0, len(positions), _PART):
            part = positions[start : start + _PART]
            lengths = ends[part + 1] - ends[part]
            after = np.cumsum(lengths)
            places = np.arange(after[-1]) + np.repeat(ends[part] - (after - lengths), lengths)
            base = len(taken._text)
            taken._text += text[places].tobytes()
            taken._ends.frombytes((after + base).tobytes())
        taken.ascending = len(positions) < 2 or (
            self.ascending and bool((np.diff(positions) > 0).all())
        )
        return taken

    def order(self) -> Positions:
        """Return the positions in the order of the names; of equal ones in their own."""
        if self._order is None:
            every = range(len(self))
            found = every if self.ascending else sorted(every, key=self._bytes)
            self._order = np.fromiter(found, np.int64, len(self))
        return self._order

    def in_order(self) -> Names:
        """Return them in their order; equal ones stay."""
        if self.ascending:
            return self
        order = self.order()
        found = self.take(order)
        found.ascending = len(self.last_of_each()) == len(self)
        return found

    def last_of_each(self) -> Positions:
        """Return where each name stands the last time, in the order of the names."""
        order = self.order()
        if self.ascending:
            return order
        differ = (a != b for a, b in pairwise(self._bytes(int(place)) for place in order))
        is_last = np.fromiter((*differ, True), np.bool_) if len(self) else np.zeros(0, np.bool_)
        return order[is_last]

    @classmethod
    def from_arrays(cls, text: npt.NDArray[np.uint8], ends: npt.NDArray[np.int64]) -> Names:
        """Return the ascending names that `arrays` gave.

        Raises:
            ValueError: These are none.
        """
        if text.dtype != np.uint8 or ends.dtype != np.int64 or text.ndim != 1 or ends.ndim != 1:
            raise ValueError("arrays of other types")
        if not len(ends) or ends[0] or ends[-1] != len(text) or (np.diff(ends) < 0).any():
            raise ValueError("names beyond their text")
        names = cls()
        names._text, names._ends = bytearray(text.tobytes()), array("q", ends.tobytes())
        return names

    def arrays(self) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
        """Return the text (bytes,) and where each name ends in it, (N + 1,), to be kept."""
        return np.array(self._text, np.uint8), np.array(self._ends, np.int64)

    def position(self, name: str) -> int | None:
        """Return where a name stands, the first time; None: nowhere."""
        wanted = bytearray(name, "utf-8", "surrogatepass")
        if self.ascending:
            # Whoever asks for many mostly does so in their order.
            place, get = self._next, self._bytes
            if not (place < len(self) and get(place) == wanted):
                place = bisect_left(range(len(self)), wanted, key=get)
            self._next = place + 1
            return place if place < len(self) and get(place) == wanted else None
        order = self.order()
        place = bisect_left(range(len(self)), wanted, key=lambda i: self._bytes(int(order[i])))
        found = int(order[place]) if place < len(self) else None
        return found if found is not None and self._bytes(found) == wanted else None

    def found_in(self, known: Container[str]) -> npt.NDArray[np.bool_]:
        """Return (N,) bool: which of these are among others."""
        return np.fromiter((name in known for name in self), np.bool_, len(self))


class NamedMapping(Mapping[str, V]):
    """A mapping whose keys are names in arrays; what they lead to is the subclass's.

    Args:
        names: The keys, in their order.
    """

    def __init__(self, names: Names) -> None:
        self._names = names

    @abstractmethod
    def _at(self, position: int) -> V:
        """Return what the name at a position leads to."""

    def __getitem__(self, name: str) -> V:
        position = self._names.position(name) if isinstance(name, str) else None
        if position is None:
            raise KeyError(name)
        return self._at(position)

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


class NameMap(NamedMapping[str]):
    """A dict from names to texts, in the order of the names; later pairs win.

    Args:
        pairs: Name and text.
    """

    def __init__(self, pairs: Iterable[tuple[str, str]]) -> None:
        names, texts = Names(), Names()
        for name, text in pairs:
            names.append(name)
            texts.append(text)
        if not names.ascending:
            chosen = names.last_of_each()
            names, texts = names.take(chosen), texts.take(chosen)
            names.ascending = True
        super().__init__(names)
        self._texts = texts

    def _at(self, position: int) -> str:
        return self._texts[position]

    @property
    def names(self) -> Names:
        """The names, ascending."""
        return self._names

    @property
    def texts(self) -> Names:
        """The texts, in the order of the names."""
        return self._texts
