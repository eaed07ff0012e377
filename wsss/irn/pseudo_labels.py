"""Pseudo-label stage: CAMs walked along IRNet's affinities, then the best class of each pixel."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path

import numpy as np
import torch

from wsss.data.index import ImageRecord, Index, read_index
from wsss.data.map_store import MapStore, MapStoreWriter, StoredMaps, map_size
from wsss.data.prefetch import prefetch
from wsss.data.shards import WHOLE, Shard
from wsss.data.transforms import image_to_tensor, normalise
from wsss.errors import UserError
from wsss.files import atomic_directory, content_hash
from wsss.irn.config import PseudoLabelsConfig
from wsss.irn.inputs import check_store, read_sized_image
from wsss.irn.model_file import load_irn_model
from wsss.irn.pool import ordered_map
from wsss.irn.random_walk import random_walk_batch
from wsss.irn.walked import UPSAMPLING, Finisher, WalkJob
from wsss.models.irnet import IrNet, edge_map
from wsss.provenance import closure_hash
from wsss.settings import to_dict
from wsss.training.compute import Compute, autocast, setup
from wsss.training.progress import progress

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
    compute: Compute,
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
        compute: Device of the network, threads, processes for walks and files on a CPU.
        shard: The part of the images to label.

    Raises:
        UserError: The inputs do not belong together, or an image is missing or has changed.
    """
    device = setup(compute, seed=0)
    known = read_index(index)
    network = load_irn_model(model)
    network.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    attributes: dict[str, str | int | float] = {
        "config": content_hash(to_dict(config)),
        "code": closure_hash(__name__),
        "normalisation": "largest value of the image",
    }
    with MapStore(cams) as store, atomic_directory(output) as folder:
        check_store(store, known, known.training_set().records, cams)
        size = GPU_BATCH if device.type == "cuda" else 1
        batches = shard.of(list(_batches(_labelled(store, known, cams), size)))
        jobs = _jobs(config, network, store, batches, root, device)
        finished = ordered_map(Finisher(config, folder), jobs, compute.workers)
        with MapStoreWriter(
            maps, classes=known.classes, attributes=attributes, upsampling=UPSAMPLING
        ) as writer:
            total = sum(map(len, batches))
            for record, class_indices, normalised in progress(
                finished, total=total, description="pseudo-labels"
            ):
                pixels = (record.height, record.width)
                writer.add(record.name, class_indices.tolist(), normalised, pixels)


def _labelled(store: MapStore, index: Index, path: Path) -> tuple[ImageRecord, ...]:
    """Return the store's images in the index's order."""
    stored = set(store.names)
    records = tuple(record for record in index.records if record.name in stored)
    if len(records) != len(stored):
        unknown = sorted(stored - {record.name for record in records})
        raise UserError(
            f"{len(unknown)} images with CAMs are not in the index, {unknown[0]} among them",
            where=path,
            fix="export the CAMs of this index again",
        )
    return records


def _jobs(
    config: PseudoLabelsConfig,
    network: IrNet,
    store: MapStore,
    batches: Sequence[Sequence[ImageRecord]],
    root: Path,
    device: torch.device,
) -> Iterator[WalkJob]:
    """Yield jobs in order: on a CPU with edges, on a GPU walked already."""
    on_gpu = device.type == "cuda"

    def load(batch: Sequence[ImageRecord]) -> tuple[Sequence[ImageRecord], list[np.ndarray]]:
        return batch, [read_sized_image(root, record) for record in batch]

    for batch, pictures in prefetch(load, batches, workers=1):
        edges = _edges(config, network, pictures, device)
        stored = [store.read(record.name) for record in batch]
        for record, maps in zip(batch, stored, strict=True):
            _check_stride(record, maps)
        if not on_gpu:
            for record, one, edge in zip(batch, stored, edges, strict=True):
                yield WalkJob(record, one.class_indices, one.maps, edge.numpy())
            continue
        walked = random_walk_batch(
            [torch.from_numpy(one.maps).to(device) for one in stored],
            list(edges),
            radius=config.radius,
            beta=config.beta,
            steps=config.steps,
        )
        for record, one, result in zip(batch, stored, walked, strict=True):
            yield WalkJob(record, one.class_indices, result.cpu().numpy(), None)


def _batches(records: Sequence[ImageRecord], size: int) -> Iterator[list[ImageRecord]]:
    """Cut neighbours of one size into batches: padding would change what GroupNorm sees."""
    for _, run in groupby(records, key=lambda record: (record.height, record.width)):
        same = list(run)
        for start in range(0, len(same), size):
            yield same[start : start + size]


@torch.inference_mode()
def _edges(
    config: PseudoLabelsConfig,
    network: IrNet,
    pictures: Sequence[np.ndarray],
    device: torch.device,
) -> torch.Tensor:
    image = torch.stack([image_to_tensor(picture) for picture in pictures]).to(device)
    normalised = normalise(image.float().div_(255), network.backbone.normalisation)
    normalised = normalised.contiguous(memory_format=torch.channels_last)
    with autocast(device, config.precision):
        return edge_map(network, normalised, mirror=config.mirror)


def _check_stride(record: ImageRecord, stored: StoredMaps) -> None:
    expected = map_size(record.height, record.width)
    if tuple(stored.maps.shape[1:]) != expected:
        raise UserError(
            f"the CAMs of {record.name!r} are maps of {tuple(stored.maps.shape[1:])}",
            expected=f"{expected}, stride 4 of its {record.width} x {record.height} px",
            fix="export the CAMs of this index again",
        )
