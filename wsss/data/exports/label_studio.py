"""Label Studio's JSON: each class of an image a brush region, as predictions to correct."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote
from xml.sax.saxutils import quoteattr

import numpy as np
import numpy.typing as npt

from wsss.data.exports.labels import Export, LabelMaps, write_list
from wsss.data.images import voc_palette

# Label Studio serves the files below its document root under this address.
LOCAL_FILES = "/data/local-files/?d="
_WORD_BITS = 8
# How many bits the length of a run can have, in the order of the two bits that choose one.
_LENGTH_BITS = (3, 4, 8, 16)
_LONGEST = 2 ** _LENGTH_BITS[-1]


def brush_rle(mask: npt.NDArray[np.bool_]) -> list[int]:
    """Return the bytes of a brush region, in the format of `@thi.ng/rle-pack`.

    Four channels a pixel, all 0 or all 255. A header (32 bits: number of words; 5: bits of a word
    - 1; 4 times 4: bits of a length - 1), then for each run a 1, two bits that choose the
    length's size, the length - 1 and the word.

    Args:
        mask: (H, W) bool.
    """
    flat = np.repeat(mask.reshape(-1), 4)
    edges = np.flatnonzero(np.diff(flat)) + 1
    starts = np.concatenate([[0], edges])
    lengths = np.diff(np.concatenate([starts, [flat.size]]))
    bits = [f"{flat.size:032b}", f"{_WORD_BITS - 1:05b}"]
    bits += [f"{size - 1:04b}" for size in _LENGTH_BITS]
    for start, length in zip(starts, lengths.tolist(), strict=True):
        word = "1" * _WORD_BITS if flat[start] else "0" * _WORD_BITS
        while length:
            part = min(length, _LONGEST)
            choice = next(i for i, size in enumerate(_LENGTH_BITS) if part <= 2**size)
            bits.append(f"1{choice:02b}{part - 1:0{_LENGTH_BITS[choice]}b}{word}")
            length -= part
    text = "".join(bits)
    packed = np.packbits(np.frombuffer(text.encode("ascii"), dtype=np.uint8) - ord("0"))
    return [int(value) for value in packed]


def labelling_config(classes: tuple[str, ...]) -> str:
    """Return the labelling interface of a Label Studio project for these classes."""
    colours = voc_palette()
    lines = ["<View>", '  <Image name="image" value="$image" zoom="true"/>']
    lines.append('  <BrushLabels name="tag" toName="image">')
    for value, name in enumerate(classes, start=1):
        colour = "#{:02x}{:02x}{:02x}".format(*colours[value])
        lines.append(f'    <Label value={quoteattr(name)} background="{colour}"/>')
    return "\n".join([*lines, "  </BrushLabels>", "</View>", ""])


def write_label_studio(labels: LabelMaps, path: Path) -> None:
    """Write tasks with predictions; what is not sure is left unlabelled."""
    with open(path, "w", encoding="utf-8") as file:
        write_list(file, _tasks(labels))
        file.write("\n")


def _tasks(labels: LabelMaps) -> Iterator[dict[str, Any]]:
    for record in labels.records:
        regions: list[dict[str, Any]] = [
            {
                "id": f"{record.name}-{value}",
                "type": "brushlabels",
                "from_name": "tag",
                "to_name": "image",
                "original_width": record.width,
                "original_height": record.height,
                "image_rotation": 0,
                "value": {"format": "rle", "rle": brush_rle(mask), "brushlabels": [name]},
            }
            for value, name, mask in labels.regions(labels.read(record))
        ]
        yield {
            "data": {"image": LOCAL_FILES + quote(record.path), "name": record.name},
            "predictions": [{"model_version": labels.source, "result": regions}],
        }


LABEL_STUDIO = Export(
    name="label-studio",
    suffix=".json",
    write=write_label_studio,
    unsure="unlabelled, as Label Studio knows nothing like it",
    next_step="import {path} into a project with the labelling interface printed above, where "
    "Label Studio serves the data set's folder as its local files (or change the addresses of "
    "the pictures in it)",
)
