"""Confident-label stage: where the CAMs are sure of an object, or sure of background.

IRN (CVPR 2019, section 4.2): a high and a low background score give two label maps, each refined
by a dense CRF; pixels on which they cannot agree are left out of IRNet's training.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wsss.data.crf import crf_from_label_maps
from wsss.data.images import IGNORE, read_sized_image, write_named
from wsss.data.index import ImageRecord, read_index
from wsss.files import atomic_directory
from wsss.irn.config import LabelsConfig
from wsss.irn.inputs import check_store, narrowed
from wsss.maps.background import threshold_of, winner
from wsss.maps.chosen import with_chosen
from wsss.maps.map_store import MapStore, StoredMaps, upsample
from wsss.maps.shards import WHOLE, Shard
from wsss.runtime.pool import ordered_map
from wsss.runtime.progress import progress


def confident_labels(
    image: np.ndarray, cams: np.ndarray, class_indices: np.ndarray, config: LabelsConfig
) -> np.ndarray:
    """Return the labels of the pixels that are sure.

    Args:
        image: (H, W, 3) uint8 RGB.
        cams: (K, H, W) float32 in 0..1, one map a tagged class.
        class_indices: (K,) positions of these classes in the class list.
        config: Thresholds and CRF.

    Returns:
        (H, W) uint8: class position + 1 where the foreground map is not background, 0 where both
        maps are background, 255 elsewhere.
    """
    # Labels count the tagged classes only: the CRF's cost grows with their number.
    thresholds = map(threshold_of, (config.foreground_threshold, config.background_threshold))
    foreground, background = crf_from_label_maps(
        image,
        [winner(cams, threshold) for threshold in thresholds],
        len(cams) + 1,
        config.crf,
    )
    values = np.concatenate([[IGNORE], np.asarray(class_indices) + 1]).astype(np.uint8)
    labels: np.ndarray = values[foreground]
    labels[(foreground == 0) & (background == 0)] = 0
    return labels


@dataclass(frozen=True)
class _Miner:
    """The work on one image; picklable, for the process pool."""

    config: LabelsConfig
    root: Path
    folder: Path

    def __call__(self, item: tuple[ImageRecord, StoredMaps, str]) -> None:
        record, stored, upsampling = item
        image = read_sized_image(self.root, record)
        cams = upsample(stored.maps, image.shape[:2], upsampling)
        labels = confident_labels(image, cams, stored.class_indices, self.config)
        write_named(self.folder, record.name, labels)


def mine_labels(
    *,
    config: LabelsConfig,
    cams: Path,
    index: Path,
    root: Path,
    output: Path,
    thresholds: Path | None = None,
    workers: int = 2,
    shard: Shard = WHOLE,
) -> None:
    """Write one label PNG for every training image (0 background, class + 1, 255 not sure).

    Args:
        config: Thresholds and CRF.
        cams: Map store of the CAMs.
        index: index.csv; its training set is labelled.
        root: Folder that the index's paths are relative to.
        output: Folder to write.
        thresholds: File of chosen scores (JSON), where one of the thresholds is `auto`.
        workers: Processes that share the images; the labels do not depend on their number.
        shard: The part of the images to label.

    Raises:
        UserError: The store is of another index, an image is missing or has changed, or a threshold
            is `auto` and was not chosen.
    """
    config = with_chosen("labels", config, thresholds)
    known = read_index(index)
    with MapStore(cams) as store, atomic_directory(output) as folder:
        trained = np.flatnonzero(check_store(store, known, cams))
        known = narrowed(store, known, trained[shard.bounds(len(trained))])
        mine = known.records

        def items() -> Iterator[tuple[ImageRecord, StoredMaps, str]]:
            for record in mine:
                size = (record.height, record.width)
                yield record, store.read(record.name, size), store.upsampling

        miner = _Miner(config, root, folder)
        done = ordered_map(miner, items(), workers)
        for _ in progress(done, total=len(mine), description="IRN labels"):
            pass
