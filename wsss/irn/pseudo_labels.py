"""Pseudo-label stage: CAMs walked along IRNet's affinities, then the best class of each pixel."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from wsss.data.images import read_sized_image
from wsss.data.index import ImageRecord, Index, Records, read_index
from wsss.errors import UserError
from wsss.files import atomic_directory, content_hash
from wsss.irn.config import PseudoLabelsConfig
from wsss.irn.edges import EdgeFinder, Labeller, edge_finder
from wsss.irn.inputs import check_store, labelled, narrowed
from wsss.irn.random_walk import random_walk_batch
from wsss.irn.walked import UPSAMPLING, Finisher, WalkJob
from wsss.maps.map_store import MapStore, MapStoreWriter, StoredMaps, map_size
from wsss.maps.shards import WHOLE, Shard
from wsss.provenance import closure_hash
from wsss.runtime.compute import InferenceCompute, setup
from wsss.runtime.lazy import Made
from wsss.runtime.names import Positions
from wsss.runtime.pool import ordered_map
from wsss.runtime.progress import progress
from wsss.runtime.settings import to_dict

Sizes = npt.NDArray[np.int32]

# Images of one size go through the network together on a GPU. More do not make it faster.
GPU_BATCH = 8


def make_pseudo_labels(
    *,
    config: PseudoLabelsConfig,
    cams: Path,
    model: Path,
    index: Path,
    root: Path,
    output: Path,
    maps: Path,
    compute: InferenceCompute,
    shard: Shard = WHOLE,
) -> None:
    """Write pseudo-label PNGs, and the walked maps for scoring at other background scores.

    Args:
        config: Walk and background score.
        cams: Map store of the CAMs, at stride 4; its images are labelled.
        model: The trained IRNet.
        index: index.csv.
        root: Folder that the index's paths are relative to.
        output: Folder of PNGs to write (0 background, class + 1).
        maps: Map store to write: walked maps divided by the image's largest value.
        compute: Device of the network and the walks. On a CPU `workers` processes of one thread
            each share the images; the labels do not depend on their number.
        shard: The part of the images to label.

    Raises:
        UserError: The inputs do not belong together, or an image is missing or has changed.
    """
    device = setup(compute, seed=0)
    known = read_index(index)
    attributes: dict[str, str | int | float] = {
        "config": content_hash(to_dict(config)),
        "code": closure_hash(__name__),
        "normalisation": "largest value of the image",
    }
    with MapStore(cams) as store, atomic_directory(output) as folder:
        check_store(store, known, cams)
        size = GPU_BATCH if device.type == "cuda" else 1
        known = narrowed(store, known, _own(store, known, cams, shard, size))
        batches = batches_of(known.records, size)
        finish: Callable[[WalkJob], tuple[ImageRecord, np.ndarray, np.ndarray]]
        if device.type == "cuda":
            find_edges = edge_finder(model, config, device)
            finish = Finisher(config, folder)
            jobs = walked_jobs(config, find_edges, store, batches, root, device)
        else:
            # All of an image's work in one process: the network in this one, its threads beside
            # the pool's processes, would make both wait for each other.
            finish = Labeller(config, model, root, folder)
            jobs = (job_of(store, record) for batch in batches for record in batch)
        finished = ordered_map(finish, jobs, compute.workers)
        with MapStoreWriter(
            maps, classes=known.classes, attributes=attributes, upsampling=UPSAMPLING
        ) as writer:
            total = sum(map(len, batches))
            for record, class_indices, normalised in progress(
                finished, total=total, description="pseudo-labels"
            ):
                pixels = (record.height, record.width)
                writer.add(record.name, class_indices.tolist(), normalised, pixels)


def _own(store: MapStore, known: Index, cams: Path, shard: Shard, size: int) -> Positions:
    """Return where the images of a shard, in whole batches, stand in the index."""
    positions = labelled(store, known, cams)
    return positions[shard_in_batches(shard, known.records.sizes()[positions], size)]


def job_of(store: MapStore, record: ImageRecord) -> WalkJob:
    """Return an image's CAMs, to be walked.

    Raises:
        UserError: They are not at stride 4 of the image.
    """
    stored = store.read(record.name, (record.height, record.width))
    _check_stride(record, stored)
    return WalkJob(record, stored.class_indices, stored.maps)


def walked_jobs(
    config: PseudoLabelsConfig,
    find_edges: EdgeFinder,
    store: MapStore,
    batches: Sequence[Sequence[ImageRecord]],
    root: Path,
    device: torch.device,
) -> Iterator[WalkJob]:
    """Yield jobs in order, their maps walked on the GPU, a batch at a time."""

    def load(batch: Sequence[ImageRecord]) -> tuple[Sequence[ImageRecord], list[np.ndarray]]:
        return batch, [read_sized_image(root, record) for record in batch]

    for batch, pictures in ordered_map(load, batches, 1, threads=True):
        edges = find_edges(pictures)
        jobs = [job_of(store, record) for record in batch]
        walked = random_walk_batch(
            [torch.from_numpy(job.maps).to(device) for job in jobs],
            list(edges),
            radius=config.radius,
            beta=config.beta,
            steps=config.steps,
        )
        for job, result in zip(jobs, walked, strict=True):
            yield replace(job, maps=result.cpu().numpy())


def shard_in_batches(shard: Shard, sizes: Sizes, size: int) -> slice:
    """Return which images are a shard's, of which none begins or ends within a batch.

    Args:
        shard: Part of the batches.
        sizes: (N, 2) height and width of all images, in order.
        size: Images in a batch.
    """
    starts = _batch_starts(sizes, size)
    part = shard.bounds(len(starts) - 1)
    return slice(int(starts[part.start]), int(starts[part.stop]))


def _batch_starts(sizes: Sizes, size: int) -> Positions:
    """Return where the batches of at most `size` neighbours of one size begin, and the end."""
    runs = np.flatnonzero((sizes[1:] != sizes[:-1]).any(axis=1)) + 1
    bounds = np.array([0, *runs, len(sizes)], np.int64) if len(sizes) else np.zeros(1, np.int64)
    batches = -(-np.diff(bounds) // size)
    before = np.cumsum(batches) - batches
    within = np.arange(batches.sum()) - np.repeat(before, batches)
    return np.append(np.repeat(bounds[:-1], batches) + size * within, len(sizes))


def batches_of(records: Records, size: int) -> Made[int, list[ImageRecord]]:
    """Cut neighbours of one size into batches: padding would change what GroupNorm sees."""
    starts = _batch_starts(records.sizes(), size)

    def batch(number: int) -> list[ImageRecord]:
        return [records[place] for place in range(starts[number], starts[number + 1])]

    return Made(batch, range(len(starts) - 1))


def _check_stride(record: ImageRecord, stored: StoredMaps) -> None:
    expected = map_size(record.height, record.width)
    if tuple(stored.maps.shape[1:]) != expected:
        raise UserError(
            f"the CAMs of {record.name!r} are maps of {tuple(stored.maps.shape[1:])}",
            expected=f"{expected}, stride 4 of its {record.width} x {record.height} px",
            fix="export the CAMs of this index again",
        )
