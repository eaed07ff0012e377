"""A list whose items are made when they are asked for, as all of a million at once are too many."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Generic, TypeVar, overload

T = TypeVar("T")
R = TypeVar("R")


class Made(Sequence[R], Generic[T, R]):
    """function(item) of each item, made anew whenever it is asked for.

    Args:
        function: What makes it.
        items: From what.
    """

    def __init__(self, function: Callable[[T], R], items: Sequence[T]) -> None:
        self._function, self._items = function, items

    def __iter__(self) -> Iterator[R]:
        # Not by `__getitem__`, whose IndexError, whoever raises it, would be taken for the end.
        return map(self._function, self._items)

    def __len__(self) -> int:
        return len(self._items)

    @overload
    def __getitem__(self, place: int) -> R: ...
    @overload
    def __getitem__(self, place: slice) -> Made[T, R]: ...
    def __getitem__(self, place: int | slice) -> R | Made[T, R]:
        if isinstance(place, slice):
            return Made(self._function, self._items[place])
        return self._function(self._items[place])
