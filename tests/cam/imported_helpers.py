"""Two small pictures, and the export of what another program made of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from wsss.cam.config import ExportConfig
from wsss.cam.export import export_cams
from wsss.cam.methods.registry import METHODS
from wsss.data.index import ImageRecord, Index, write_index
from wsss.files import write_json
from wsss.maps.map_store import MapStore, StoredMaps
from wsss.runtime.compute import Compute
from wsss.runtime.settings import to_dict

CLASSES = ("bird", "cat", "dog")
SIZES = {"one": (26, 30), "two": (12, 16)}
TAGS = {"one": ("dog", "cat"), "two": ("bird",)}


def write_pictures(folder: Path) -> None:
    """Write the pictures and their index."""
    folder.mkdir()
    records = []
    for name, (height, width) in SIZES.items():
        Image.fromarray(np.zeros((height, width, 3), np.uint8)).save(folder / f"{name}.png")
        records.append(ImageRecord(name, ("train",), TAGS[name], width, height, f"{name}.png"))
    write_index(Index(CLASSES, tuple(records)), folder / "index.csv")


def export(
    data: Path,
    seeds: Path,
    settings: dict[str, Any],
    *,
    cams: Path | None = None,
    **export_settings: Any,
) -> dict[str, StoredMaps]:
    """Export with some settings of `imported`, and return what is in the store."""
    chosen = METHODS.parse({"method": "imported", **settings}, where="cam")
    write_json(data / "cam.json", to_dict(chosen))
    export_cams(
        config=ExportConfig(**export_settings),
        index=data / "index.csv",
        root=data,
        output=data / "cams.h5",
        compute=Compute(device="cpu", threads=1, workers=0),
        cam=data / "cam.json",
        seeds_root=seeds,
        other_cams=cams,
    )
    with MapStore(data / "cams.h5") as store:
        return {name: store.read(name) for name in store.names}
