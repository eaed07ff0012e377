"""What is exported: label maps of some images, and what is known of these images."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

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


def json_line(value: object) -> str:
    """Return a value as JSON, on one line and with letters of any script as they are."""
    return json.dumps(value, ensure_ascii=False)


def write_list(file: TextIO, values: Iterable[object]) -> None:
    """Write a list as `json_line` would, but one value after the other."""
    empty = True
    for position, value in enumerate(values):
        file.write((", " if position else "[") + json_line(value))
        empty = False
    file.write("[]" if empty else "]")


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
