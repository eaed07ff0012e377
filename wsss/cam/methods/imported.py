"""Maps and masks from elsewhere as a source of CAMs for the export stage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from wsss.cam.config import ExportConfig
from wsss.cam.imported_maps import ClassMaps, LabelMaps
from wsss.cam.imported_masks import Masks, PictureMasks
from wsss.cam.mask_classes import Rule, class_maps_of
from wsss.cam.methods.imported_config import ImportedSettings
from wsss.cam.source import SourceFiles
from wsss.data.fingerprints import tree_sizes_digest
from wsss.data.index import ImageRecord, Index
from wsss.errors import UserError
from wsss.files import file_digest
from wsss.maps.map_store import MapStore, map_size, upsample

# What an export does to pictures before a network sees them does not come about here.
_NO_VIEWS: Mapping[str, str | int] = {"scales": "", "mirror": 0, "precision": "float32"}


@dataclass(frozen=True)
class ImportedMaps:
    """Maps that come with their classes.

    Attributes:
        reader: Reads a picture's.
        attributes: Where they come from, for the map store.
        description: The same in words.
    """

    reader: ClassMaps | LabelMaps
    attributes: Mapping[str, str | int | float]
    description: str

    def prepare(self, record: ImageRecord, root: Path) -> np.ndarray:
        """Return the maps of a picture's tags, (K, h, w) float32, K in the order of the classes."""
        classes = self.reader.classes
        return self.reader.read(record, sorted(record.tags, key=classes.index))

    def maps(
        self, prepared: np.ndarray, class_indices: Sequence[int], size: tuple[int, int]
    ) -> Tensor:
        """Return the maps at the store's size, (K, (H-1)//4+1, (W-1)//4+1) float32 in 0..1."""
        return _reduced(prepared, size)


@dataclass(frozen=True)
class ImportedMasks:
    """Masks without classes, and CAMs that say which class each is of.

    Attributes:
        reader: Reads a picture's masks.
        cams: The CAMs.
        rule: When a mask is taken.
        attributes: Where the maps come from, for the map store.
        description: The same in words.
    """

    reader: Masks
    cams: MapStore
    rule: Rule
    attributes: Mapping[str, str | int | float]
    description: str

    def prepare(self, record: ImageRecord, root: Path) -> tuple[str, PictureMasks]:
        """Return a picture's name and its masks."""
        return record.name, self.reader.read(record)

    def maps(
        self,
        prepared: tuple[str, PictureMasks],
        class_indices: Sequence[int],
        size: tuple[int, int],
    ) -> Tensor:
        """Return the maps at the store's size, (K, (H-1)//4+1, (W-1)//4+1) float32 in 0..1."""
        name, masks = prepared
        # Here, as a map store is for one thread at a time.
        stored = self.cams.read(name)
        if stored.class_indices.tolist() != list(class_indices) or stored.size != size:
            raise UserError(
                f"the CAMs of {name!r} are of other tags or another size than the index has",
                where="cam.cams_from",
                fix="make them with the same data set",
            )
        cams = upsample(stored.maps, size, self.cams.upsampling)
        maps, _ = class_maps_of(masks, cams, self.rule)
        return _reduced(maps, size)


def _reduced(maps: np.ndarray, size: tuple[int, int]) -> Tensor:
    """Return maps as means over what a value of the map store stands for."""
    values = torch.from_numpy(np.ascontiguousarray(maps, dtype=np.float32))
    target = map_size(*size)
    if values.shape[1:] == target:
        return values
    return F.interpolate(values[None], size=target, mode="area")[0]


def imported_source(
    settings: ImportedSettings,
    export: ExportConfig,
    index: Index,
    *,
    device: torch.device,
    files: SourceFiles,
) -> ImportedMaps | ImportedMasks:
    """Look at a folder of maps or masks, whether all of them are there.

    Args:
        settings: Of the method.
        export: Must refine nothing; its scales and mirror are of no effect.
        index: The pictures that are exported.
        device: Of no effect.
        files: The folder, and the CAMs of another run where masks want classes.

    Raises:
        UserError: Maps are missing or of a class that there is not, or the CAMs are not given.
    """
    if export.refine != "none":
        raise UserError(
            f"export.refine is '{export.refine}', and imported maps are taken as they are",
            where="export.refine",
            expected="none",
        )
    folder = files.seeds_root
    if folder is None or not folder.is_dir():
        raise UserError(
            "the folder of maps or masks is not there" if folder else "no folder of maps was given",
            where=folder or "--seeds-root",
            expected=f"the folder that roots.{settings.seeds} names",
        )
    about: dict[str, Any] = {**_NO_VIEWS, "seeds": tree_sizes_digest(folder), "kind": settings.kind}
    said = f"{settings.kind} in {folder}"
    if settings.kind != "masks":
        kind = ClassMaps if settings.kind == "class-maps" else LabelMaps
        reader = kind(folder, index.classes)
        reader.check(index.records)
        return ImportedMaps(reader, {**about, "normalisation": "as imported"}, said)
    masks = Masks(folder, settings.file, settings.min_score)
    masks.check(index.records)
    about["normalisation"] = "1 in masks of the class, elsewhere the CAM or 0"
    if files.cams is None:
        raise UserError(
            f"cam.cams_from names the run '{settings.cams_from}', but its CAMs were not given",
            where="--other-cams",
            fix=f"--other-cams results/{settings.cams_from}/cams.h5",
        )
    store = MapStore(files.cams)
    if store.classes != index.classes:
        raise UserError(
            "these CAMs are of other classes than the index has",
            where=files.cams,
            expected=", ".join(index.classes),
        )
    rule = Rule(
        background=settings.background,
        min_coverage=settings.min_coverage,
        min_share=settings.min_share,
        keep_uncovered=settings.keep_uncovered,
    )
    about["cams"] = file_digest(files.cams)
    return ImportedMasks(masks, store, rule, about, f"{said}, classes by {files.cams}")
