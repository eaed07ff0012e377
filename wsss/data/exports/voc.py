"""PASCAL VOC's layout, and CVAT's "Segmentation mask 1.1", which is a zip of it."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path, PurePosixPath

import numpy as np

from wsss.data.exports.labels import Export, LabelMaps
from wsss.data.images import IGNORE, voc_palette, write_label
from wsss.data.index import ImageRecord
from wsss.errors import UserError
from wsss.runtime.names import Names

# The first time that a zip can hold: same labels, same bytes.
_TIME = (1980, 1, 1, 0, 0, 0)


def labelmap(classes: tuple[str, ...]) -> str:
    """Return labelmap.txt: a class and its colour a line, the background first."""
    colours = voc_palette()
    lines = ["# label:color_rgb:parts:actions"]
    for value, name in enumerate(("background", *classes)):
        if ":" in name or name.startswith("#"):
            raise UserError(
                f"the class name {name!r} holds a ':', or begins with '#'",
                expected="names without: in labelmap.txt they part columns and begin remarks",
                fix="choose another format, such as coco",
            )
        lines.append(f"{name}:{','.join(map(str, colours[value]))}::")
    return "\n".join(lines) + "\n"


def write_voc(labels: LabelMaps, path: Path) -> None:
    """Write SegmentationClass/, ImageSets/Segmentation/ and labelmap.txt; 255 stays 255."""
    path.mkdir(exist_ok=True)
    (path / "labelmap.txt").write_text(labelmap(labels.classes), encoding="utf-8")
    sets: dict[str, Names] = {}
    for record in labels.records:
        for name in record.sets:
            sets.setdefault(name, Names()).append(record.name)
        target = path / "SegmentationClass" / f"{record.name}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        write_label(target, labels.read(record))
    folder = path / "ImageSets" / "Segmentation"
    folder.mkdir(parents=True)
    for name, images in sets.items():
        with open(folder / f"{name}.txt", "w", encoding="utf-8") as file:
            file.writelines(f"{image}\n" for image in images)


def frame_name(record: ImageRecord) -> str:
    """Return what CVAT knows a picture by: `cat/1` for `cat/1.jpg`, which we call `cat__1`.

    CVAT looks for a frame whose path ends like this. So a name without subfolders stays as it is,
    and is found wherever the pictures lie in the task.
    """
    parts = PurePosixPath(record.path).with_suffix("").parts
    for start in range(len(parts)):
        if "__".join(parts[start:]) == record.name:
            return "/".join(parts[start:])
    return record.name


def _png(label: np.ndarray) -> bytes:
    file = io.BytesIO()
    write_label(file, label)
    return file.getvalue()


def write_cvat(labels: LabelMaps, path: Path) -> None:
    """Write CVAT's "Segmentation mask 1.1": what is not sure is left unlabelled there.

    Each class of an image is one object, which CVAT shows as one mask.
    """
    with zipfile.ZipFile(path, "w") as archive:

        def add(name: str, content: str | bytes) -> None:
            entry = zipfile.ZipInfo(name, _TIME)
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, content)

        add("labelmap.txt", labelmap(labels.classes))
        names = "".join(f"{frame_name(record)}\n" for record in labels.records)
        add("ImageSets/Segmentation/default.txt", names)
        for record in labels.records:
            label = labels.read(record)
            label[label == IGNORE] = 0
            objects = np.zeros_like(label)
            for number, (_, _, mask) in enumerate(labels.regions(label), start=1):
                objects[mask] = number
            add(f"SegmentationClass/{frame_name(record)}.png", _png(label))
            add(f"SegmentationObject/{frame_name(record)}.png", _png(objects))


VOC = Export(
    name="voc",
    suffix="",
    write=write_voc,
    unsure="255, as VOC has it",
    next_step="{path} has VOC's layout, without the pictures",
)
CVAT = Export(
    name="cvat",
    suffix=".zip",
    write=write_cvat,
    unsure="unlabelled, as CVAT knows nothing like it",
    next_step="in a CVAT task with these pictures (in their subfolders, where they have any) and "
    "labels: Actions, Upload annotations, Segmentation mask 1.1, {path}",
)
