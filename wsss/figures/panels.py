"""Panels: one picture an image, what several stages or runs made of it side by side."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from wsss.data import drawing
from wsss.data.images import IGNORE, read_class_label, read_image
from wsss.data.index import MASK_FIX, ImageRecord, read_index, read_masks
from wsss.data.sampling import shown_records
from wsss.evaluation.confusion import confusion_matrix, scores_from_confusion
from wsss.files import atomic_directory
from wsss.maps.map_store import MapStore, upsample

TILE_WIDTH_PX = 280


@dataclass(frozen=True)
class _Sources:
    """Where each column's content comes from, by title; without masks, no ground truth."""

    root: Path
    classes: tuple[str, ...]
    cams: Mapping[str, MapStore]
    labels: Mapping[str, Path]
    masks: Mapping[str, str] | None


def cam_tiles(
    image: drawing.Picture, store: MapStore, name: str, title: str
) -> list[drawing.Picture]:
    """Draw the class maps of an image as heat, one tile a class, all in the same scale.

    Args:
        image: (H, W, 3) uint8.
        store: Map store, whose maps are in 0..1.
        name: The image.
        title: Of the source; the tiles' titles add their class.
    """
    small = drawing.resized(image, TILE_WIDTH_PX)
    if name not in store.names:
        return [drawing.titled(drawing.message(small, "none for this image"), title)]
    stored = store.read(name)
    maps = upsample(stored.maps, image.shape[:2], store.upsampling)
    scale = drawing.heat_scale(TILE_WIDTH_PX)
    tiles = []
    for position, strength in zip(stored.class_indices, maps, strict=True):
        heat = drawing.resized(drawing.heat_map(image, strength), TILE_WIDTH_PX)
        other = f"{title}, class {position + 1}"
        tile = drawing.titled(heat, f"{title}, {store.classes[position]}", otherwise=other)
        tiles.append(drawing.below([tile, scale], gap_px=0))
    return tiles or [drawing.titled(drawing.message(small, "no tags"), title)]


def _label_tile(
    small: drawing.Picture, label: npt.NDArray[np.uint8] | None, title: str
) -> drawing.Picture:
    if label is None:
        return drawing.titled(drawing.message(small, "none for this image"), title)
    resized = drawing.resized(label, TILE_WIDTH_PX, smooth=False)
    return drawing.titled(drawing.blend_labels(small, resized), title)


def _scored(
    title: str,
    label: npt.NDArray[np.uint8] | None,
    truth: npt.NDArray[np.uint8] | None,
    n_labels: int,
) -> str:
    """Return a title with the mean IoU of a label map, where there is a mask."""
    if label is None or truth is None:
        return title
    iou = scores_from_confusion(confusion_matrix(truth, label, n_labels)).mean_iou
    return title if math.isnan(iou) else f"{title}, IoU {100 * iou:.0f} %"


def panel(record: ImageRecord, sources: _Sources) -> drawing.Picture:
    """Return the panel of one image: the image, its CAMs, its label maps, the ground truth."""
    image = read_image(sources.root / record.path)
    small = drawing.resized(image, TILE_WIDTH_PX)
    title = f"{record.name}: {', '.join(record.tags) or 'no tags'}"
    tiles = [drawing.titled(small, title, otherwise=record.name)]
    for source, store in sources.cams.items():
        tiles += cam_tiles(image, store, record.name, source)
    mask = None if sources.masks is None else sources.masks.get(record.name)
    size, n_labels = image.shape[:2], len(sources.classes) + 1
    truth = None
    if mask is not None:
        truth = read_class_label(sources.root / mask, size, n_labels, fix=MASK_FIX)
    shown = {}
    for source, folder in sources.labels.items():
        path = folder / f"{record.name}.png"
        label = read_class_label(path, size, n_labels) if path.is_file() else None
        shown[_scored(source, label, truth, n_labels)] = label
    if sources.masks is not None:
        shown["ground truth"] = truth
    tiles += [_label_tile(small, label, title) for title, label in shown.items()]
    row = drawing.beside(tiles)
    found = [np.unique(label) for label in shown.values() if label is not None]
    seen = sorted({int(value) for values in found for value in values} - {0})
    entries = [
        (label, "ignore" if label == IGNORE else sources.classes[label - 1]) for label in seen
    ]
    strip = drawing.legend(row.shape[1], entries)
    return drawing.below([row, strip], gap_px=0) if strip.shape[0] else row


def write_side_by_side(
    records: Sequence[ImageRecord],
    *,
    classes: tuple[str, ...],
    masks: Path | None,
    root: Path,
    cams: Mapping[str, Path],
    labels: Mapping[str, Path],
    output: Path,
) -> None:
    """Write one PNG an image, a column each source, and the contact sheet `index.png`.

    An image that a source lacks gets a grey tile.

    Args:
        records: Images to show.
        classes: Names without background.
        masks: `masks.csv`, for the ground truth in the last column; None: no such column.
        root: Data root.
        cams: Title -> map store.
        labels: Title -> folder of label PNGs.
        output: Folder to write.

    Raises:
        UserError: A label map has another size than its image, or a label of no class.
    """
    with ExitStack() as stack:
        sources = _Sources(
            root=root,
            classes=classes,
            cams={title: stack.enter_context(MapStore(path)) for title, path in cams.items()},
            labels=labels,
            # A data set without masks has no column of grey tiles for them.
            masks=None if masks is None else read_masks(masks) or None,
        )
        folder = stack.enter_context(atomic_directory(output))
        drawing.save_all({record.name: panel(record, sources) for record in records}, folder)


def write_panels(
    *,
    index: Path,
    masks: Path | None = None,
    root: Path,
    cams: Path | None = None,
    pseudo_labels: Path | None = None,
    predictions: Path | None = None,
    output: Path,
    split: str,
    names: Sequence[str] = (),
    count: int = 8,
) -> None:
    """Write what every stage of a run made of a few images.

    A column whose source is None is left out; an image that a source lacks gets a grey tile.

    Args:
        index: `index.csv`.
        masks: `masks.csv`, for the ground truth.
        root: Data root.
        cams: Map store.
        pseudo_labels: Folder of label PNGs.
        predictions: Folder of label PNGs.
        output: Folder to write.
        split: Image set to choose from.
        names: Images to show, in whichever sets they are; where none is in this one: `count`,
            evenly spaced through the sorted split.
        count: How many images to show where no name decides.

    Raises:
        UserError: The split is empty, there is no image of a name, or a label map has another
            size.
    """
    everything = read_index(index)
    folders = {"pseudo-label": pseudo_labels, "prediction": predictions}
    write_side_by_side(
        shown_records(everything, split=split, names=names, count=count),
        classes=everything.classes,
        masks=masks,
        root=root,
        cams={} if cams is None else {"CAM": cams},
        labels={title: folder for title, folder in folders.items() if folder is not None},
        output=output,
    )


def write_figure(
    *,
    index: Path,
    masks: Path,
    root: Path,
    cams: Mapping[str, Path] = MappingProxyType({}),
    labels: Mapping[str, Path] = MappingProxyType({}),
    output: Path,
    split: str,
    names: Sequence[str] = (),
    count: int = 8,
) -> None:
    """Write image, CAMs or label maps, and ground truth of a few images, of one run or several.

    Args:
        index: `index.csv`.
        masks: `masks.csv`.
        root: Data root.
        cams: Title -> map store.
        labels: Title -> folder of label PNGs.
        output: Folder to write.
        split: Image set to choose from.
        names: Images to show, in whichever sets they are; where none is in this one: `count`.
        count: How many images to show where no name decides.

    Raises:
        UserError: The split is empty, there is no image of a name, or a label map has another
            size.
    """
    everything = read_index(index)
    write_side_by_side(
        shown_records(everything, split=split, names=names, count=count),
        classes=everything.classes,
        masks=masks,
        root=root,
        cams=cams,
        labels=labels,
        output=output,
    )
