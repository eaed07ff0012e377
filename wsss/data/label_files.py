"""Where the label maps of very many images lie."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from wsss.runtime.names import NamedMapping, Names


class LabelFiles(NamedMapping[Path]):
    """The label PNG of each of many images.

    Args:
        names: The images.
        place: Returns where the label PNG of one lies; picklable.
    """

    def __init__(self, names: Names, place: Callable[[str], Path]) -> None:
        super().__init__(names)
        self._place = place

    def _at(self, position: int) -> Path:
        return self._place(self._names[position])
