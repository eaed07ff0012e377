"""Panels: one picture an image with what every stage made of it, and a contact sheet of all."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from wsss.data.images import read_image, read_label
from wsss.data.index import ImageRecord, read_index, read_masks
from wsss.data.map_store import MapStore, StoredMaps, upsample
from wsss.errors import UserError
from wsss.evaluation import drawing
from wsss.evaluation.sampling import sample_records
from wsss.files import atomic_directory

TILE_WIDTH_PX = 280
CONTACT_SHEET = "index.png"


@dataclass(frozen=True)
class _Sources:
    """Where each column's content comes from; None: no such column."""

    root: Path
    classes: tuple[str, ...]
    cams: MapStore | None
    pseudo_labels: Path | None
    predictions: Path | None
    masks: dict[str, str] | None


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
    """Return the panel of one image: image, CAM, pseudo-label, prediction, ground truth."""
    image = read_image(sources.root / record.path)
    small = drawing.resized(image, TILE_WIDTH_PX)
    tiles = [drawing.titled(small, record.name)]
    seen: set[int] = set()
    if sources.cams is not None:
        if record.name in sources.cams.names:
            stored = sources.cams.read(record.name)
            tile = cam_picture(image, stored, sources.cams.classes, sources.cams.upsampling)
        else:
            tile = drawing.message(small, "none for this image")
        tiles.append(drawing.titled(tile, "CAM"))
    for folder, title in (
        (sources.pseudo_labels, "pseudo-label"),
        (sources.predictions, "prediction"),
    ):
        if folder is not None:
            tiles.append(_label_tile(image, folder / f"{record.name}.png", title, seen))
    if sources.masks is not None:
        mask = sources.masks.get(record.name)
        path = None if mask is None else sources.root / mask
        tiles.append(_label_tile(image, path, "ground truth", seen))
    row = drawing.beside(tiles)
    entries = [
        (label, "ignore" if label == drawing.IGNORE else sources.classes[label - 1])
        for label in sorted(seen - {0})
        if label == drawing.IGNORE or label <= len(sources.classes)
    ]
    strip = drawing.legend(row.shape[1], entries)
    return drawing.below([row, strip], gap_px=0) if strip.shape[0] else row


def _save(picture: npt.NDArray[np.uint8], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).save(path, format="PNG")


def write_panels(
    *,
    index: Path,
    masks: Path | None,
    root: Path,
    cams: Path | None,
    pseudo_labels: Path | None,
    predictions: Path | None,
    output: Path,
    split: str,
    names: Sequence[str] = (),
    count: int = 8,
) -> None:
    """Write one panel PNG an image and the contact sheet `index.png`.

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
    records = sample_records(everything, split=split, names=names, count=count)
    with ExitStack() as stack:
        sources = _Sources(
            root=root,
            classes=everything.classes,
            cams=None if cams is None else stack.enter_context(MapStore(cams)),
            pseudo_labels=pseudo_labels,
            predictions=predictions,
            masks=None if masks is None else read_masks(masks),
        )
        folder = stack.enter_context(atomic_directory(output))
        panels = []
        for record in records:
            picture = panel(record, sources)
            _save(picture, folder / f"{record.name}.png")
            panels.append(picture)
        _save(drawing.below(panels, gap_px=8), folder / CONTACT_SHEET)
