"""COCO JSON: one object a class and image, as run lengths, exact to the pixel."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from wsss.data.exports.labels import Export, LabelMaps, json_line, write_list
from wsss.data.images import IGNORE


def _encoded(mask: npt.NDArray[np.bool_]) -> dict[str, Any]:
    """Return segmentation, area and box of a mask as COCO's annotations have them."""
    from pycocotools import mask as coco_mask

    run_lengths = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {
        "area": int(coco_mask.area(run_lengths)),
        "bbox": [float(value) for value in coco_mask.toBbox(run_lengths)],
        "segmentation": {**run_lengths, "counts": run_lengths["counts"].decode("ascii")},
    }


def write_coco(labels: LabelMaps, path: Path) -> None:
    """Write label maps as COCO JSON.

    Pixels that are not sure become a crowd of every class that the image has, since that is what
    COCO calls an area in which nothing counts; of an image without classes they are left out.
    """
    with open(path, "w", encoding="utf-8") as file:
        file.write(f'{{"info": {json_line({"description": labels.source})}, "images": ')
        write_list(file, _images(labels))
        file.write(', "annotations": ')
        write_list(file, _annotations(labels))
        categories = [
            {"id": value, "name": name, "supercategory": ""}
            for value, name in enumerate(labels.classes, start=1)
        ]
        file.write(f', "categories": {json_line(categories)}}}\n')


def _images(labels: LabelMaps) -> Iterator[dict[str, Any]]:
    for number, record in enumerate(labels.records, start=1):
        yield {
            "id": number,
            "file_name": record.path,
            "width": record.width,
            "height": record.height,
        }


def _annotations(labels: LabelMaps) -> Iterator[dict[str, Any]]:
    numbers = count(1)
    for number, record in enumerate(labels.records, start=1):
        label = labels.read(record)
        found = [(value, mask, 0) for value, _, mask in labels.regions(label)]
        unsure = label == IGNORE
        if unsure.any():
            found += [(value, unsure, 1) for value, _, _ in found]
        for value, mask, crowd in found:
            yield {
                "id": next(numbers),
                "image_id": number,
                "category_id": value,
                "iscrowd": crowd,
                **_encoded(mask),
            }


COCO = Export(
    name="coco",
    suffix=".json",
    write=write_coco,
    unsure="a crowd (iscrowd 1) of the picture's classes",
    next_step="{path} is read by pycocotools, CVAT, Roboflow and FiftyOne; paths of pictures in it "
    "are relative to the data set's folder",
)
