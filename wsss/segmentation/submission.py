"""Packing predictions for PASCAL VOC's evaluation server.

The server takes `results/VOC2012/Segmentation/comp6_test_cls/NAME.png` in a tar.gz: one palette
PNG of the image's size for every image of the test set, no 255. comp6 is the competition of
methods that used data beside VOC's own, such as ImageNet weights; comp5 is for those that did not.
"""

from __future__ import annotations

import gzip
import io
import tarfile
import zlib
from pathlib import Path
from typing import Literal

from wsss.data.formats.voc import VOC_CLASSES
from wsss.data.images import read_label, write_label
from wsss.data.index import ImageRecord, read_index
from wsss.errors import UserError, listed
from wsss.files import atomic_file
from wsss.files.marks import check_file_replaceable

_FOLDER = "results/VOC2012/Segmentation/"


def _problem(record: ImageRecord, path: Path) -> str | None:
    if not path.is_file():
        return "no prediction"
    label = read_label(path)
    if label.shape != (record.height, record.width):
        size = f"{record.width} x {record.height}"
        return f"{label.shape[1]} x {label.shape[0]} px, the image is {size} px"
    if int(label.max()) > len(VOC_CLASSES):
        return f"label {label.max()}, the server takes 0..{len(VOC_CLASSES)}"
    return None


def _png(path: Path) -> bytes:
    # Written anew, so that the palette is the devkit's whatever wrote the prediction.
    content = io.BytesIO()
    write_label(content, read_label(path))
    return content.getvalue()


def _is_submission(path: Path) -> bool:
    try:
        with tarfile.open(path, mode="r:gz") as archive:
            first = archive.next()
    except (OSError, EOFError, tarfile.TarError, zlib.error):
        return False
    return first is None or first.name.startswith(_FOLDER)


def pack_submission(
    *,
    predictions: Path,
    index: Path,
    output: Path,
    split: str = "test",
    competition: Literal["comp5", "comp6"] = "comp6",
) -> None:
    """Write the tar.gz for the server; same predictions, same bytes.

    Args:
        predictions: Folder of label PNGs.
        index: `index.csv`.
        output: File to write, `.tar.gz`.
        split: Image set, the server's `test`.
        competition: `comp6`, or `comp5` for methods without any other data.

    Raises:
        UserError: Not VOC's classes, or predictions that the server would refuse; all of them
            are listed.
    """
    check_file_replaceable(output, _is_submission, "an archive of predictions")
    images = read_index(index).subset(split)
    if images.classes != VOC_CLASSES:
        raise UserError(
            f"this index has the classes {', '.join(images.classes)}",
            where=index,
            expected=f"PASCAL VOC's, in its order: {', '.join(VOC_CLASSES)}",
        )
    found = {r.name: _problem(r, predictions / f"{r.name}.png") for r in images.records}
    problems = [f"{name}: {text}" for name, text in found.items() if text]
    if problems:
        raise UserError(
            f"{len(problems)} of {len(found)} predictions cannot be submitted: "
            f"{listed(problems, separator='; ')}",
            where=predictions,
            fix=f"predict the whole split '{split}' again",
        )
    folder = f"{_FOLDER}{competition}_test_cls"
    with (
        atomic_file(output) as temporary,
        open(temporary, "wb") as raw,
        # No name and no time in the headers: they would differ from one packing to the next.
        gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as archive,
    ):
        for name in sorted(found):
            content = _png(predictions / f"{name}.png")
            entry = tarfile.TarInfo(f"{folder}/{name}.png")
            entry.size = len(content)
            entry.mode = 0o644
            archive.addfile(entry, io.BytesIO(content))
