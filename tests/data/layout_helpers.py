"""A few pictures in folders, their tags, and what the library reads there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from wsss.commands.init import recognised
from wsss.data.build import build_index
from wsss.data.formats.registry import FORMATS

TAGS = {
    **{"beach/a.jpg": ("dog", "sea"), "beach/b.jpg": ("sea",), "town/c.png": ("car", "dog")},
    **{"town/d.jpg": ("car",), "e.jpg": ("dog",), "town/a.jpg": ("car",)},
}


def picture(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(seed).integers(0, 255, (6, 9, 3), dtype=np.uint8)
    Image.fromarray(values).save(path)


def write_pictures(root: Path) -> Path:
    for seed, file in enumerate(TAGS):
        picture(root / file, seed)
    return root


def read(root: Path, **changes: object):
    settings = FORMATS.parse({**recognised(root), **changes}, where="index")
    return settings, build_index(settings, root)


def found(index) -> dict[str, tuple[str, ...]]:
    return {record.path: record.tags for record in index.records}
