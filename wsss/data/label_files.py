"""Where the label maps of very many images lie."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from wsss.runtime.names import Names


class LabelFiles(Mapping[str, Path]):
    """The label PNG of each of many images.

    Args:
        names: The images.
        place: Returns where the label PNG of one lies; picklable.
    """

    def __init__(self, names: Names, place: Callable[[str], Path]) -> None:
        self._names, self._place = names, place

    def __getitem__(self, name: str) -> Path:
        if name not in self._names:
            raise KeyError(name)
        return self._place(name)

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)
