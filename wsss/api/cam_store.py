"""The class activation maps of a run, by the name of the image."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import numpy.typing as npt

from wsss.api.files import find_cams
from wsss.data.listing import nearest
from wsss.maps.map_store import Attribute, MapStore, upsample


@dataclass(frozen=True)
class Cams:
    """The CAMs of one image.

    Attributes:
        classes: (K) names of the classes that the image is tagged with.
        maps: (K, H, W) float32 at the image's size, a map a class, in 0..1.
    """

    classes: tuple[str, ...]
    maps: npt.NDArray[np.float32]

    def __getitem__(self, name: str) -> npt.NDArray[np.float32]:
        """Return the (H, W) map of one class.

        Raises:
            KeyError: The image is not tagged with it.
        """
        if name not in self.classes:
            tags = ", ".join(self.classes) or "nothing"
            raise KeyError(f"no map of {name!r}: the image is tagged with {tags}")
        found: npt.NDArray[np.float32] = self.maps[self.classes.index(name)]
        return found


class CamStore(Mapping[str, Cams]):
    """Reads a file of CAMs as a mapping from the names of the images; for one thread at a time.

    The walked maps of the pseudo-labels, `results/<run>/walked.h5`, have the same form.

    Args:
        path: `results/<run>`, or the file.

    Raises:
        UserError: The file is missing, damaged, or of another format.

    Examples:
        >>> with wsss.CamStore("results/mine/cams.h5") as cams:  # doctest: +SKIP
        ...     dog = cams["holiday_001"]["dog"]
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._store = MapStore(find_cams(Path(path)))
        self._names = self._store.names

    @property
    def classes(self) -> tuple[str, ...]:
        """All classes of the data set, background not counted."""
        return self._store.classes

    @property
    def attributes(self) -> Mapping[str, Attribute]:
        """What the file says of itself: format, settings and code it was made by."""
        return self._store.attributes

    def __getitem__(self, name: str) -> Cams:
        """Return the CAMs of one image.

        Args:
            name: The image, without suffix, as in `index.csv`.

        Raises:
            KeyError: There are no CAMs of an image of this name.
            UserError: The file is damaged.
        """
        if name not in self._names:
            raise KeyError(f"no CAMs of an image {name!r}{nearest(name, self._store.names)}")
        stored = self._store.read(name)
        classes = tuple(self._store.classes[int(i)] for i in stored.class_indices)
        return Cams(classes, upsample(stored.maps, stored.size, self._store.upsampling))

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def __iter__(self) -> Iterator[str]:
        return iter(self._store.names)

    def __len__(self) -> int:
        return len(self._names)

    def close(self) -> None:
        """Close the file."""
        self._store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
