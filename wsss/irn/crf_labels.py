"""Pseudo-labels straight from class maps: the stage's code for `pseudo_labels.method: crf`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from wsss.data.images import read_sized_image, write_named
from wsss.data.index import ImageRecord, read_index
from wsss.data.sure_labels import sure_labels
from wsss.files import atomic_directory, content_hash
from wsss.irn.crf_label_config import CrfLabelsSettings
from wsss.irn.inputs import check_store, labelled, narrowed
from wsss.irn.map_labels import class_shares, refined_scores, wrapped_bgr
from wsss.maps.background import background_map
from wsss.maps.map_store import MapStore, MapStoreWriter, upsample
from wsss.maps.shards import WHOLE, Shard
from wsss.provenance import closure_hash
from wsss.runtime.compute import InferenceCompute, setup
from wsss.runtime.pool import ordered_map
from wsss.runtime.progress import progress
from wsss.runtime.settings import to_dict

# Maps are kept at the image's size: as the labels that they are, not a quarter of them.
UPSAMPLING = "resize"
# Where a class's share of itself and background is above this, it beats background.
EVEN = 0.5


@dataclass(frozen=True)
class MapJob:
    """One image's maps, (K, h, w) float32, and their (K,) positions in the class list."""

    record: ImageRecord
    class_indices: np.ndarray
    maps: np.ndarray
    upsampling: str


@dataclass(frozen=True)
class MapLabeller:
    """Refines and labels one image; picklable, for the process pool."""

    config: CrfLabelsSettings
    root: Path
    folder: Path
    device: str

    def __call__(self, job: MapJob) -> tuple[ImageRecord, np.ndarray, np.ndarray]:
        """Write the label PNG; return the image, its classes and their shares at its size."""
        config, record = self.config, job.record
        picture = read_sized_image(self.root, record)
        maps = upsample(job.maps, (record.height, record.width), job.upsampling)
        background = background_map(maps, config.background)
        wraps = config.refine == "crf" and config.preset == "published"
        refined = refined_scores(
            wrapped_bgr(picture) if wraps else picture,
            np.concatenate([background[None], maps]),
            refine=config.refine,
            crf=config.crf,
            par_iterations=config.par_iterations,
            device=torch.device(self.device),
        )
        labels = sure_labels(refined, job.class_indices, config.confidence)
        write_named(self.folder, record.name, labels)
        return record, job.class_indices, class_shares(refined)


def make_crf_labels(
    *,
    config: CrfLabelsSettings,
    cams: Path,
    index: Path,
    root: Path,
    output: Path,
    maps: Path,
    compute: InferenceCompute,
    shard: Shard = WHOLE,
) -> None:
    """Write pseudo-label PNGs, and for scoring each class's share of itself and background.

    A share above one half is a class that beats background: at that background score the maps are
    the labels before unsure pixels became 255.

    Args:
        config: Background, refinement, confidence.
        cams: Map store of the CAMs; its images are labelled.
        index: index.csv.
        root: Folder that the index's paths are relative to.
        output: Folder of PNGs to write (0 background, class + 1, 255 unsure).
        maps: Map store to write, maps of the images' own size.
        compute: Device of PAR, which on a GPU has the images one after the other; otherwise
            `workers` processes share them. The labels do not depend on their number.
        shard: The part of the images to label.

    Raises:
        UserError: The inputs do not belong together, or an image is missing or has changed.
    """
    device = setup(compute, seed=0)
    known = read_index(index)
    on_gpu = config.refine == "par" and device.type != "cpu"
    attributes: dict[str, str | int | float] = {
        "config": content_hash(to_dict(config)),
        "code": closure_hash(__name__),
        "normalisation": "share of class and background",
    }
    with MapStore(cams) as store, atomic_directory(output) as folder:
        check_store(store, known, cams)
        positions = labelled(store, known, cams)
        known = narrowed(store, known, positions[shard.bounds(len(positions))])
        records = known.records
        label = MapLabeller(config, root, folder, str(device) if on_gpu else "cpu")

        def jobs() -> Iterator[MapJob]:
            for record in records:
                stored = store.read(record.name, (record.height, record.width))
                yield MapJob(record, stored.class_indices, stored.maps, store.upsampling)

        finished = ordered_map(label, jobs(), 1 if on_gpu else compute.workers)
        with MapStoreWriter(
            maps, classes=known.classes, attributes=attributes, upsampling=UPSAMPLING
        ) as writer:
            for record, class_indices, shares in progress(
                finished, total=len(records), description="pseudo-labels"
            ):
                size = (record.height, record.width)
                writer.add(record.name, class_indices.tolist(), shares, size)
