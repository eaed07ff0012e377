"""LPCAM stage: passes over the training images, into the clusters that CAMs are refined with."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

import numpy as np
import torch

from wsss.cam.export import cam_source
from wsss.cam.lpcam import (
    ClassClusters,
    Clusters,
    check_features,
    find_clusters,
    on_cam,
    sampled,
    save_clusters,
    similarity_maps,
)
from wsss.cam.lpcam_config import LpcamConfig
from wsss.cam.model_file import CLASSIFIER
from wsss.cam.source import CamSource, View
from wsss.data.images import read_sized_image
from wsss.data.index import ImageRecord, Index, read_index
from wsss.data.loader import random_generator
from wsss.errors import UserError
from wsss.files import file_digest
from wsss.runtime.compute import InferenceCompute, autocast, setup
from wsss.runtime.lazy import Made
from wsss.runtime.pool import ordered_map
from wsss.runtime.progress import progress
from wsss.runtime.settings import to_dict

# A class, a round from 0, and one of the class's images.
_Job = tuple[int, int, ImageRecord]


def make_clusters(
    *,
    config: LpcamConfig,
    model: Path,
    index: Path,
    root: Path,
    output: Path,
    compute: InferenceCompute,
) -> None:
    """Cluster the features of the training images, class by class.

    An image is seen once for each of its classes and rounds, so that no more than one class's
    features are kept at a time.

    Args:
        config: Clusters, bounds, sampling.
        model: The trained classifier (safetensors).
        index: index.csv; its training set's images and tags are used, nothing else.
        root: Folder that the index's paths are relative to.
        output: Clusters to write (safetensors).
        compute: Device and threads.

    Raises:
        UserError: The model knows other classes than the index, or has no features to cluster.
    """
    device = setup(compute, config.seed)
    trained = CLASSIFIER.load(model)
    known = read_index(index)
    if trained.classes != known.classes:
        raise UserError(
            "the model was trained for other classes than the index has",
            where=model,
            expected=", ".join(known.classes),
            fix="train the CAM model on this index",
        )
    check_features(trained.network, model)
    source = cam_source(config.precision, trained.network, None, device, mirror=False)
    with torch.inference_mode(), autocast(device, config.precision):
        of_class = tuple(_of_classes(config, source, known, root, compute))
    clusters = Clusters(known.classes, of_class, file_digest(model))
    save_clusters(output, clusters, to_dict(config))


def _of_classes(
    config: LpcamConfig, source: CamSource, index: Index, root: Path, compute: InferenceCompute
) -> Iterator[ClassClusters]:
    weights = source.classifier.class_weights.float().cpu().numpy()
    training = index.training_set()
    tagged, images = np.nonzero(training.multi_hot().T)
    counts = np.bincount(tagged, minlength=len(index.classes))
    # By class, then by round, then by image.
    of_class = np.split(images, np.cumsum(counts)[:-1])
    places = np.concatenate([np.tile(each, config.rounds) for each in of_class])
    positions = np.repeat(np.arange(len(counts)), counts * config.rounds)
    rounds = np.concatenate([np.repeat(np.arange(config.rounds), count) for count in counts])

    def job(number: int) -> _Job:
        record = training.records[int(places[number])]
        return int(positions[number]), int(rounds[number]), record

    jobs = Made(job, range(len(positions)))
    nothing = np.zeros((0, weights.shape[1]), np.float32)
    found: dict[int, ClassClusters] = {}

    def load(job: _Job) -> tuple[_Job, View]:
        return job, source.views(read_sized_image(root, job[2]), [1.0])[0]

    threads = compute.workers if source.device.type == "cuda" else min(1, compute.workers)
    loaded = ordered_map(load, jobs, threads, threads=True, ahead=max(4, 2 * threads))
    watched = progress(loaded, total=len(jobs), description="cluster features")
    for (position, number), group in groupby(watched, key=lambda item: item[0][:2]):
        before = found.get(position)
        most = min(
            config.features_per_image, max(1, config.features_per_class // int(counts[position]))
        )
        on, beside, silent = [nothing], [nothing], 0
        for (*_, record), view in group:
            feature = source.features(view)[0].float().cpu()
            rows = feature.flatten(1).T.numpy()
            if before is not None and len(before.objects):
                likeness = similarity_maps(feature, [before]).flatten().numpy()
                chosen = on_cam(likeness, config.map_threshold)
            else:
                chosen = on_cam(rows @ weights[position], config.cam_threshold)
            if chosen is None:
                silent += 1
                continue
            rng = random_generator(config.seed, "lpcam", position, record.name)
            on.append(sampled(rows[chosen], most, rng))
            beside.append(sampled(rows[~chosen], most, rng))
        rng = random_generator(config.seed, "lpcam", position)
        on_rows, beside_rows = np.concatenate(on), np.concatenate(beside)
        found[position] = find_clusters(on_rows, beside_rows, weights, position, config, rng)
        if number == config.rounds - 1:
            _tell(index.classes[position], found[position], int(counts[position]), silent)
    missing = [name for i, name in enumerate(index.classes) if i not in found]
    if missing:
        print(
            f"no training image has the tags {', '.join(missing)}: they keep their CAM",
            file=sys.stderr,
        )
    for position in range(len(index.classes)):
        yield found.get(position, ClassClusters(nothing, nothing))


def _tell(name: str, found: ClassClusters, images: int, silent: int) -> None:
    words = f"{name}: {images} images, clusters of object {len(found.objects)}, of context "
    words += f"{len(found.context)}"
    if silent:
        words += f"; in {silent} the CAM is nowhere above 0"
    if not len(found.objects):
        words += "; none is surely of the object: it keeps its CAM"
    print(words, file=sys.stderr)
