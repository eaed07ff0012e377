"""Data sets made up for benchmarks: smooth pictures, masks and CAMs that belong together."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.ndimage import zoom

from wsss.data.images import write_label
from wsss.data.index import ImageRecord, Index, write_index, write_masks
from wsss.maps.map_store import MapStoreWriter, map_size

CLASSES = tuple(f"class_{number:02d}" for number in range(20))


def _smooth(rng: np.random.Generator, count: int, height: int, width: int) -> np.ndarray:
    """(count, height, width) float32 in 0..1, with a few hills each."""
    coarse = rng.random((count, 6, 8), dtype=np.float32)
    big = zoom(coarse, (1, height / 6, width / 8), order=1)[:, :height, :width]
    low, high = big.min((1, 2), keepdims=True), big.max((1, 2), keepdims=True)
    return np.asarray((big - low) / np.maximum(high - low, 1e-6), np.float32)


def picture(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """A smooth (height, width, 3) uint8 picture with a little noise, as cameras have."""
    base = _smooth(rng, 3, height, width).transpose(1, 2, 0) * 255
    return np.clip(base + rng.normal(0, 4, base.shape), 0, 255).astype(np.uint8)


def cams(rng: np.random.Generator, classes: int, height: int, width: int) -> np.ndarray:
    """(classes, h, w) float32 CAMs at stride 4 of an image of height x width."""
    return _smooth(rng, classes, *map_size(height, width))


def _images(
    folder: Path, count: int, height: int, width: int, tags: int, suffix: str, distinct: int
) -> Iterator[tuple[ImageRecord, np.ndarray]]:
    """Write pictures and masks; yield each record with its CAMs.

    Only `distinct` of them differ, the others are links: drawing many would take longest.
    """
    drawn: list[tuple[Path, Path, np.ndarray]] = []
    for number in range(count):
        name = f"image_{number:06d}"
        image, mask = folder / f"images/{name}.{suffix}", folder / f"masks/{name}.png"
        chosen = [(number + 7 * k) % len(CLASSES) for k in range(tags)]
        if number < distinct:
            rng = np.random.default_rng(number)
            Image.fromarray(picture(rng, height, width)).save(image, quality=90)
            maps = cams(rng, tags, height, width)
            score = _smooth(rng, tags, height, width)
            values = np.array([0, *(k + 1 for k in sorted(chosen))])
            label = values[np.where(score.max(0) > 0.6, score.argmax(0) + 1, 0)]
            label[:2] = 255
            write_label(mask, label.astype(np.uint8))
            drawn.append((image, mask, maps))
        else:
            image.hardlink_to(drawn[number % distinct][0])
            mask.hardlink_to(drawn[number % distinct][1])
        maps = drawn[number % distinct][2]
        names = tuple(sorted(CLASSES[k] for k in chosen))
        record = ImageRecord(name, ("train",), names, width, height, f"images/{image.name}")
        yield record, maps


def write_data_set(
    folder: Path,
    *,
    count: int,
    size: tuple[int, int],
    tags: int = 2,
    suffix: str = "jpg",
    distinct: int | None = None,
    root: str = "data",
) -> Index:
    """Write a data set of the folder format, its index, masks.csv and a store of CAMs.

    Args:
        folder: Gets `data/` (pictures, masks, labels.csv), index.csv, masks.csv and cams.h5.
        count: Number of images.
        size: (height, width) of every image.
        tags: Tagged classes an image.
        suffix: `jpg` or `png`, of the pictures.
        distinct: How many pictures differ; None: all.
        root: Name of the data's folder.
    """
    data = folder / root
    for name in ("images", "masks"):
        (data / name).mkdir(parents=True)
    records = []
    with MapStoreWriter(folder / "cams.h5", classes=CLASSES, attributes={}) as store:
        for record, maps in _images(data, count, *size, tags, suffix, distinct or count):
            indices = [CLASSES.index(tag) for tag in record.tags]
            store.add(record.name, indices, maps, size)
            records.append(record)
    index = Index(CLASSES, tuple(records))
    write_index(index, folder / "index.csv")
    write_masks({r.name: f"masks/{r.name}.png" for r in records}, folder / "masks.csv")
    lines = ["image,tags,set", *(f"{r.name}.{suffix},{';'.join(r.tags)},train" for r in records)]
    (data / "labels.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return index
