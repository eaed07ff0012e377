"""All formats that labels can be exported to, and the export."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from wsss.data.exports.coco import COCO
from wsss.data.exports.label_studio import LABEL_STUDIO
from wsss.data.exports.labels import Export, LabelMaps
from wsss.data.exports.voc import CVAT, VOC
from wsss.data.images import IGNORE
from wsss.files import atomic_directory, atomic_file
from wsss.files.marks import check_free


def write_png(labels: LabelMaps, path: Path) -> None:
    """Copy the label PNGs as they are, with classes.txt beside them."""
    path.mkdir(exist_ok=True)
    names = "".join(f"{name}\n" for name in labels.classes)
    (path / "classes.txt").write_text(names, encoding="utf-8")
    for record in labels.records:
        labels.read(record)
        target = path / "masks" / f"{record.name}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(labels.files[record.name], target)


PNG = Export(
    name="png",
    suffix="",
    write=write_png,
    unsure="255, as in our own masks",
    next_step="correct those in {path}/masks and copy them into masks/ beside images/: "
    "segmentation.labels: mixed trains on them",
)
EXPORTS: Mapping[str, Export] = {
    export.name: export for export in (COCO, CVAT, LABEL_STUDIO, VOC, PNG)
}


def export_labels(labels: LabelMaps, name: str, output: Path) -> None:
    """Write label maps in the format `name`; nothing that is there is written over.

    Raises:
        UserError: Something is at `output`, or a label map does not fit its image.
    """
    export = EXPORTS[name]
    check_free(output)
    with atomic_file(output) if export.suffix else atomic_directory(output) as temporary:
        export.write(labels, temporary)


def unsure_share(labels: LabelMaps) -> float:
    """Return the share of all pixels whose label is 255."""
    unsure = total = 0
    for record in labels.records:
        label = labels.read(record)
        unsure, total = unsure + int(np.count_nonzero(label == IGNORE)), total + label.size
    return unsure / total if total else 0.0
