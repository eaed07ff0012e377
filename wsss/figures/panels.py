"""Panels: one picture an image, what several stages or runs made of it side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np

from wsss.data import drawing
from wsss.data.images import IGNORE, read_image, read_label
from wsss.data.index import ImageRecord, read_index, read_masks
from wsss.data.sampling import sample_records, shown_records
from wsss.errors import UserError
from wsss.files import atomic_directory
from wsss.maps.map_store import MapStore, StoredMaps, upsample

TILE_WIDTH_PX = 280


@dataclass(frozen=True)
class _Sources:
    """Where each column's content comes from, by title; without masks, no ground truth."""

    root: Path
    classes: tuple[str, ...]
    cams: Mapping[str, MapStore]
    labels: Mapping[str, Path]
    masks: Mapping[str, str] | None


def cam_picture(
    image: drawing.Picture, stored: StoredMaps, classes: Sequence[str], upsampling: str
) -> drawing.Picture:
    """Draw the strongest class map of every pixel as heat, each class named at its peak.

    Args:
        image: (H, W, 3) uint8.
        stored: The image's maps, in 0..1.
        classes: Names without background.
        upsampling: How the maps reach the image's size.
    """
    maps = upsample(stored.maps, image.shape[:2], upsampling)
    strength = maps.max(axis=0) if len(maps) else np.zeros(image.shape[:2], dtype=np.float32)
    picture = drawing.resized(drawing.heat_map(image, strength), TILE_WIDTH_PX)
    factor = picture.shape[1] / image.shape[1]
    peaks = []
    for position, values in zip(stored.class_indices, maps, strict=True):
        y, x = np.unravel_index(int(values.argmax()), values.shape)
        peaks.append((classes[int(position)], (int(x * factor), int(y * factor))))
    return drawing.write_text_at(picture, peaks)


def _label_tile(
    image: drawing.Picture, path: Path | None, title: str, seen: set[int]
) -> drawing.Picture:
    small = drawing.resized(image, TILE_WIDTH_PX)
    if path is None or not path.is_file():
        tile = drawing.message(small, "none for this image")
        return drawing.titled(tile, title)
    label = read_label(path)
    if label.shape != image.shape[:2]:
        raise UserError(
            f"this label map is {label.shape[1]} x {label.shape[0]} px",
            where=path,
            expected=f"the image's {image.shape[1]} x {image.shape[0]} px",
        )
    seen.update(int(value) for value in np.unique(label))
    resized = drawing.resized(label, TILE_WIDTH_PX, smooth=False)
    return drawing.titled(drawing.blend_labels(small, resized), title)


def panel(record: ImageRecord, sources: _Sources) -> drawing.Picture:
    """Return the panel of one image: the image, its CAMs, its label maps, the ground truth."""
    image = read_image(sources.root / record.path)
    small = drawing.resized(image, TILE_WIDTH_PX)
    tiles = [drawing.titled(small, record.name)]
    seen: set[int] = set()
    for title, store in sources.cams.items():
        if record.name in store.names:
            stored = store.read(record.name)
            tile = cam_picture(image, stored, store.classes, store.upsampling)
        else:
            tile = drawing.message(small, "none for this image")
        tiles.append(drawing.titled(tile, title))
    for title, folder in sources.labels.items():
        tiles.append(_label_tile(image, folder / f"{record.name}.png", title, seen))
    if sources.masks is not None:
        mask = sources.masks.get(record.name)
        path = None if mask is None else sources.root / mask
        tiles.append(_label_tile(image, path, "ground truth", seen))
    row = drawing.beside(tiles)
    entries = [
        (label, "ignore" if label == IGNORE else sources.classes[label - 1])
        for label in sorted(seen - {0})
        if label == IGNORE or label <= len(sources.classes)
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
        UserError: A label map has another size than its image.
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
        names: Images to show; empty: `count` evenly spaced through the sorted split.
        count: How many images to show.

    Raises:
        UserError: The split is empty, a name is not in it, or a label map has another size.
    """
    everything = read_index(index)
    folders = {"pseudo-label": pseudo_labels, "prediction": predictions}
    write_side_by_side(
        sample_records(everything, split=split, names=names, count=count),
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
