"""The stages that read a data set: its index and its masks."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from wsss.data.build import build_index, build_masks, mask_fingerprint, pictures_of
from wsss.data.class_names import check_order, class_counts
from wsss.data.fingerprints import combined, file_digests, named_digest, remembered
from wsss.data.formats.registry import FORMATS, IndexSettings
from wsss.data.index import (
    MASKS,
    PICTURES,
    ImageRecord,
    Index,
    Records,
    classes_path,
    read_index,
    require_truth,
    write_index,
    write_masks,
)
from wsss.data.listing import read_lines
from wsss.data.mask_check import class_table
from wsss.errors import UserError
from wsss.files import written_text


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
    _write_contents(index.records.paths, root, output, PICTURES, memory)
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


def training_mask_fingerprint(settings: IndexSettings, root: Path, kind: str | None) -> str:
    """Return a hash of the masks of the images that are trained on, by the data as they are now.

    Masks of other images only score, and do not count. Where masks are drawn or generated from
    what the index depends on as well, all of them count.

    Args:
        settings: The data set's format.
        root: The data set's folder.
        kind: What is learnt from, as `segmentation.labels` has it; None: that does not matter.

    Raises:
        UserError: The data set is not there, or the masks to learn from are not: said now, rather
            than after a training.
    """
    whole, chosen = mask_fingerprint(settings, root), FORMATS.get(settings.format, where="format")
    if chosen.generator is not None or chosen.draws_masks:
        return whole
    try:
        listing = chosen.list_images(settings, root)
        records = Records(
            ImageRecord(e.name, e.sets, e.tags, 0, 0, e.path) for e in listing.entries
        )
        trained = Index(listing.classes, records).training_set()
        # Of all images: a mask of none is compared with every name.
        found, _ = chosen.find_masks(settings, root, Index(listing.classes, records))
    except UserError:
        return whole  # what is wrong with the data is for the index stage to say
    if kind is not None:
        require_truth(kind, trained, found, where=root)
    names = sorted(name for name in trained.records.names if name in found)
    digest = named_digest(root, [found[name] for name in names])
    return combined("training masks", *names, digest)


def _write_contents(
    files: Sequence[str], root: Path, output: Path, name: str, memory: Path | None
) -> None:
    """Write the SHA-256 of files, given relative to the root, beside `output`."""
    with remembered(memory, root):
        digests = file_digests(files, f"{os.fspath(root)}/")
    with written_text(output.with_name(name)) as lines:
        for digest, file in zip(digests, files, strict=True):
            lines.write(f"{digest}  {file}\n")


def make_masks(
    *,
    config: IndexSettings,
    root: Path,
    index: Path,
    output: Path,
    trained: bool = False,
    memory: Path | None = None,
) -> None:
    """Check and list the ground-truth masks.

    Args:
        config: The data set's format.
        root: The data set's folder.
        index: index.csv.
        output: masks.csv to write; masks.sha256 goes beside it.
        trained: List only those of images that are trained on, for a training on masks.
        memory: Folder for the digests of files that were read, so that no other start reads them.

    Raises:
        UserError: A mask is of another size than its image, or unreadable, or most of them
            contradict the tags.
    """
    known = read_index(index)
    only = known.training_set() if trained else None
    masks = build_masks(config, root, known, only=only)
    write_masks(masks, output)
    _write_contents(masks.texts, root, output, MASKS, memory)
    print(f"{len(masks)} masks; {class_table(known.classes)}")
