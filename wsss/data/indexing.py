"""The stages that read a data set: its index and its masks."""

from __future__ import annotations

from pathlib import Path

from wsss.data.build import build_index, build_masks
from wsss.data.formats.registry import IndexSettings
from wsss.data.index import read_index, write_index, write_masks


def make_index(*, config: IndexSettings, root: Path, output: Path) -> None:
    """Check a data set and write the list of its images and tags.

    Args:
        config: The data set's format.
        root: The data set's folder.
        output: index.csv to write; classes.txt goes beside it.

    Raises:
        UserError: Something is wrong with the data; the message names all of it.
    """
    index = build_index(config, root)
    write_index(index, output)
    print(f"{len(index.records)} images, {len(index.classes)} classes")


def make_masks(*, config: IndexSettings, root: Path, index: Path, output: Path) -> None:
    """Check and list the ground-truth masks.

    Args:
        config: The data set's format.
        root: The data set's folder.
        index: index.csv.
        output: masks.csv to write.

    Raises:
        UserError: A mask is of another size than its image, or unreadable.
    """
    masks = build_masks(config, root, read_index(index))
    write_masks(masks, output)
    print(f"{len(masks)} masks")
