"""A tiny data set whose classes a small network learns in seconds."""

from __future__ import annotations

import numpy as np
from PIL import Image

from wsss.data.images import write_label
from wsss.data.index import ImageRecord, Index, write_index, write_masks
from wsss.models.config import BackboneConfig
from wsss.models.heads.deeplab_config import V3PlusSettings
from wsss.segmentation.config import SegmentationConfig

CLASSES = ("red", "blue")
COLOURS = {1: (210, 40, 40), 2: (40, 60, 210)}


def picture(height, width, seed=0):
    """A smooth picture of random colours."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, size=(6, 5, 3)).astype(np.uint8)
    return np.array(Image.fromarray(small).resize((width, height), Image.Resampling.BILINEAR))


def make_picture(rng, height, width):
    """A noisy grey picture with one coloured rectangle; returns image and labels."""
    image = rng.integers(90, 150, size=(height, width, 3)).astype(np.uint8)
    label = np.zeros((height, width), np.uint8)
    value = int(rng.integers(1, 3))
    top, left = int(rng.integers(0, height // 2)), int(rng.integers(0, width // 2))
    box = (slice(top, top + height // 2), slice(left, left + width // 2))
    image[box] = np.clip(COLOURS[value] + rng.integers(-30, 30, size=image[box].shape), 0, 255)
    label[box] = value
    return image, label


def make_data(folder, *, train=12, val=4):
    """Write images, index, masks.csv with masks, and pseudo-labels equal to the masks."""
    rng = np.random.default_rng(0)
    root, pseudo = folder / "data", folder / "pseudo"
    (root / "masks").mkdir(parents=True)
    pseudo.mkdir()
    records, masks = [], {}
    for i in range(train + val):
        name, split = f"p{i:02d}", "train" if i < train else "val"
        height, width = 60 + 3 * (i % 4), 71 - 5 * (i % 3)
        image, label = make_picture(rng, height, width)
        Image.fromarray(image).save(root / f"{name}.png")
        write_label(root / "masks" / f"{name}.png", label)
        masks[name] = f"masks/{name}.png"
        if split == "train":
            write_label(pseudo / f"{name}.png", label)
        tag = CLASSES[int(label.max()) - 1]
        records.append(ImageRecord(name, (split,), (tag,), width, height, f"{name}.png"))
    write_index(Index(CLASSES, tuple(records)), folder / "index.csv")
    write_masks(masks, folder / "masks.csv")
    return folder


def tiny_config(**changes):
    values = {
        "backbone": BackboneConfig(),
        "head": V3PlusSettings(channels=16, low_level_channels=8, rates=(1, 2), dropout=0.0),
        "epochs": 1,
        "batch_size": 4,
        "crop_px": 64,
        "scale_min": 0.9,
        "scale_max": 1.2,
        "learning_rate": 0.02,
    }
    return SegmentationConfig(**(values | changes))
