"""What is exported: label maps of some images, and what is known of these images."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from wsss.data.images import IGNORE, read_class_label
from wsss.data.index import ImageRecord


@dataclass(frozen=True)
class LabelMaps:
    """Label maps to be written in another tool's format.

    Attributes:
        classes: Names without background; label = position + 1.
        records: The images, sorted by name.
        files: Image name -> label PNG: 0 background, 1.. classes, 255 not sure.
        source: What made them, such as `mine pseudo-labels`.
    """

    classes: tuple[str, ...]
    records: Sequence[ImageRecord]
    files: Mapping[str, Path]
    source: str

    def read(self, record: ImageRecord) -> npt.NDArray[np.uint8]:
        """Return an image's (H, W) uint8 label map.

        Raises:
            UserError: It has another size than the image, or labels that are no class.
        """
        size = (record.height, record.width)
        return read_class_label(self.files[record.name], size, len(self.classes) + 1)

    def regions(
        self, label: npt.NDArray[np.uint8]
    ) -> Iterator[tuple[int, str, npt.NDArray[np.bool_]]]:
        """Yield (label value, class name, (H, W) mask) of every class that a label map has."""
        for value in np.unique(label):
            if 0 < value < IGNORE:
                yield int(value), self.classes[int(value) - 1], label == value


@dataclass(frozen=True)
class Export:
    """A format that other tools read.

    Attributes:
        name: What `--format` says.
        suffix: Of the file; empty: a folder.
        write: Writes label maps to a path, which the caller makes appear at once.
        unsure: What becomes of pixels with label 255, for the line on the terminal.
        next_step: What to do with the result; `{path}` is where it lies.
    """

    name: str
    suffix: str
    write: Callable[[LabelMaps, Path], None]
    unsure: str
    next_step: str
