"""The stages that read a data set: its index and its masks."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from wsss.data.build import build_index, build_masks, pictures_of
from wsss.data.class_names import check_order, class_counts
from wsss.data.fingerprints import file_digests, remembered
from wsss.data.formats.registry import IndexSettings
from wsss.data.index import (
    Index,
    classes_path,
    read_index,
    require_labels,
    write_index,
    write_masks,
)
from wsss.data.listing import read_lines
from wsss.data.mask_check import class_table
from wsss.errors import UserError
from wsss.files import write_text

PICTURES, MASKS = "pictures.sha256", "masks.sha256"
"""Beside the lists: the content of the files that they name, as `sha256sum` writes it."""


def make_index(
    *,
    config: IndexSettings,
    root: Path,
    output: Path,
    sets: Sequence[str] = (),
    memory: Path | None = None,
) -> None:
    """Check a data set and write the list of its images and tags.

    Args:
        config: The data set's format.
        root: The data set's folder.
        output: index.csv to write; classes.txt and pictures.sha256 go beside it.
        sets: Image sets that the run needs; said now, rather than after a training.
        memory: Folder for the digests of files that were read, so that no other start reads them.

    Raises:
        UserError: Something is wrong with the data; the message names all of it. Or a set has no
            image, or none of the training set has a tag. Or an index that is there numbers the
            classes in another order.
    """
    index = build_index(config, root)
    check_sets(index, sets)
    former = classes_path(output)
    if former.is_file():
        check_order(read_lines(former), index.classes, where=former, root=root)
    write_index(index, output)
    _write_contents([each.path for each in index.records], root, output, PICTURES, memory)
    print(
        f"{len(index.records)} images, {len(index.classes)} classes; {class_table(index.classes)}"
    )
    print(class_counts(pictures_of(index.classes, index.records)))


def check_sets(index: Index, sets: Sequence[str]) -> None:
    """Check that a run has images to train on, and in each of these sets.

    Raises:
        UserError: It has not; the message says how to give it some.
    """
    if not sets:
        return
    index.training_set()
    for name in sets:
        if name not in index.sets:
            raise UserError(
                f"no image is in the set '{name}', which the run predicts or scores",
                where="index",
                expected=f"one of {', '.join(index.sets)}",
                fix="put some images into that set, or name another one: prediction.split, "
                "evaluation.seed_split",
            )


def check_truth(index: Index, masks: Collection[str], root: Path) -> None:
    """Check that a run that learns from masks alone has one of every training image.

    Raises:
        UserError: It has not.
    """
    fix = "add the masks, or train with segmentation.labels: pseudo or mixed"
    require_labels(index.training_set(), masks, where=root, fix=fix)


def _write_contents(
    files: Sequence[str], root: Path, output: Path, name: str, memory: Path | None
) -> None:
    """Write the SHA-256 of files, given relative to the root, beside `output`."""
    with remembered(memory, root):
        digests = file_digests([root / file for file in files])
    lines = (f"{digest}  {file}\n" for digest, file in zip(digests, files, strict=True))
    write_text(output.with_name(name), "".join(lines))


def make_masks(
    *,
    config: IndexSettings,
    root: Path,
    index: Path,
    output: Path,
    memory: Path | None = None,
) -> None:
    """Check and list the ground-truth masks.

    Args:
        config: The data set's format.
        root: The data set's folder.
        index: index.csv.
        output: masks.csv to write; masks.sha256 goes beside it.
        memory: Folder for the digests of files that were read, so that no other start reads them.

    Raises:
        UserError: A mask is of another size than its image, or unreadable, or most of them
            contradict the tags.
    """
    known = read_index(index)
    masks = build_masks(config, root, known)
    write_masks(masks, output)
    _write_contents([file for _, file in sorted(masks.items())], root, output, MASKS, memory)
    print(f"{len(masks)} masks; {class_table(known.classes)}")
