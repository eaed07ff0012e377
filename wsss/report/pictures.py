"""Pictures inside the page itself, so that the report is one file."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from wsss.data import drawing
from wsss.data.images import read_image, read_label, voc_palette
from wsss.report.findings import Picture

WIDTH_PX = 480
QUALITY = 86


@dataclass(frozen=True)
class Shown:
    """One picture of the report, with what the page says beside it."""

    title: str
    note: str
    tiles: tuple[tuple[str, str], ...]
    """Title and data URI of each tile."""


def data_uri(picture: drawing.Picture) -> str:
    """Return a picture (H, W, 3) uint8 as a JPEG inside a URI."""
    file = io.BytesIO()
    Image.fromarray(picture).save(file, format="JPEG", quality=QUALITY, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"


def show(
    picture: Picture,
    *,
    root: Path,
    labels: Path,
    masks: Mapping[str, str],
) -> Shown:
    """Draw a picture, its prediction and, where it has one, its mask.

    Args:
        picture: What to show.
        root: Data root.
        labels: Folder of predicted label PNGs.
        masks: Name -> path of the mask, relative to `root`.
    """
    name = picture.record.name
    image = read_image(root / picture.record.path)
    width = min(WIDTH_PX, image.shape[1]) if image.shape[1] > WIDTH_PX // 2 else WIDTH_PX // 2
    small = drawing.resized(image, width)
    tiles = [("picture", data_uri(small))]
    files = {"prediction": labels / f"{name}.png"}
    if name in masks:
        files["ground truth"] = root / masks[name]
    for title, file in files.items():
        label = drawing.resized(read_label(file), width, smooth=False)
        tiles.append((title, data_uri(drawing.blend_labels(small, label))))
    score = f"tags {100 * picture.tag_score:.0f} %" if picture.record.tags else ""
    if picture.iou is not None:
        score = f"IoU {100 * picture.iou:.1f} %"
    return Shown(f"{name}: {', '.join(picture.record.tags) or 'no tags'}", score, tuple(tiles))


def panel_uris(folder: Path, most: int) -> list[tuple[str, str]]:
    """Return name and data URI of the panels in a folder, `most` at most."""
    files = sorted(file for file in folder.glob("*.png") if file.name != drawing.CONTACT_SHEET)
    step = max(1, -(-len(files) // most))
    return [(file.stem, data_uri(read_image(file))) for file in files[::step]]


def colours(labels: Sequence[str]) -> dict[str, str]:
    """Return the CSS colour of each label, the background first."""
    return {
        name: "#" + bytes(np.asarray(colour, np.uint8)).hex()
        for name, colour in zip(labels, voc_palette()[: len(labels)], strict=True)
    }
