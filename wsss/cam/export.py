"""Export stage: the CAMs of every tagged image into one map store."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch

from wsss.cam.config import ExportConfig
from wsss.cam.inference import multi_scale_cam
from wsss.cam.model_file import CLASSIFIER, CamModel
from wsss.cam.source import CamSource, View
from wsss.data.images import read_image
from wsss.data.index import ImageRecord, read_index
from wsss.errors import UserError
from wsss.files import content_hash
from wsss.maps.map_store import Attribute, MapStoreWriter
from wsss.maps.shards import WHOLE, Shard
from wsss.models.classifier import Classifier
from wsss.models.lean import LeanClassifier, lean_classifier
from wsss.provenance import closure_hash
from wsss.runtime.compute import (
    InferenceCompute,
    autocast,
    convolution_dtype,
    resolve_precision,
    setup,
)
from wsss.runtime.memory import release_freed_memory, return_large_blocks
from wsss.runtime.pool import ordered_map
from wsss.runtime.progress import progress
from wsss.runtime.registry import chosen_modules
from wsss.runtime.settings import to_dict


def export_cams(
    *,
    config: ExportConfig,
    model: Path,
    index: Path,
    root: Path,
    output: Path,
    compute: InferenceCompute,
    attention_model: Path | None = None,
    shard: Shard = WHOLE,
) -> None:
    """Write the CAMs of the training images, and of the images that seeds are scored on.

    Args:
        config: Scales, mirror, refinement, precision.
        model: The trained classifier (safetensors).
        index: index.csv.
        root: Folder that the index's paths are relative to.
        output: Map store to write (HDF5).
        compute: Device and threads.
        attention_model: The trained transformer of the run that `config.refine_from` names.
        shard: The part of the images to export.

    Raises:
        UserError: The model knows other classes than the index, an image became unreadable, or
            there is no transformer to refine with.
    """
    device = setup(compute, seed=0)
    if config.refine != "none" and device.type == "cpu":
        # Attention takes memory of its own: beside ResNet-38 in float32 this saves 300 MB.
        return_large_blocks()
    trained = CLASSIFIER.load(model)
    known = read_index(index)
    if trained.classes != known.classes:
        raise UserError(
            "the model was trained for other classes than the index has",
            where=model,
            expected=", ".join(known.classes),
            fix="train the CAM model on this index",
        )
    attention = _attention_model(config, trained, model, attention_model)
    attentive = None if attention is None else attention.network
    source = cam_source(config, trained.network, attentive, device)

    def load(record: ImageRecord) -> tuple[ImageRecord, list[View]]:
        return record, source.views(read_image(root / record.path), config.scales)

    tagged = [r for r in known.records if r.tags and set(r.sets) & {"train", "train_aug"}]
    records = shard.of(tagged)
    models = [trained] if attention is None else [trained, attention]
    modules = {name for each in models for name in chosen_modules(each.settings)}
    attributes: dict[str, Attribute] = {
        "config": content_hash(to_dict(config)),
        "code": closure_hash(__name__, *sorted(modules)),
        "model": trained.identity,
        "normalisation": "max-min per class",
        "scales": " ".join(map(str, config.scales)),
        "mirror": int(config.mirror),
        "precision": config.precision,
        "refine": config.refine,
    }
    if attention is not None:
        attributes["attention_model"] = attention.identity
    _announce(source, records, config)
    with (
        torch.inference_mode(),
        autocast(device, config.precision),
        MapStoreWriter(output, classes=known.classes, attributes=attributes) as store,
    ):
        # A GPU is through with an image before one thread has the next one ready.
        threads = compute.workers if device.type == "cuda" else min(1, compute.workers)
        loaded = ordered_map(load, records, threads, threads=True, ahead=max(4, 2 * threads))
        for record, images in progress(loaded, total=len(records), description="export CAMs"):
            size = (record.height, record.width)
            indices = known.class_indices(record)
            maps = multi_scale_cam(
                partial(source.cam, class_indices=indices),
                images,
                size=size,
                mirror=config.mirror,
                epsilon=source.classifier.map_epsilon,
            )
            store.add(record.name, indices, maps.cpu().numpy(), size)
    if device.type == "cuda":
        peak = torch.cuda.max_memory_allocated(device) / 1e9
        print(f"export CAMs: {peak:.2f} GB of GPU memory at most", file=sys.stderr)


def cam_source(
    config: ExportConfig,
    classifier: Classifier,
    attention_from: Classifier | None,
    device: torch.device,
) -> CamSource:
    """Bring the networks to `device`, in the form in which they give CAMs fastest.

    Args:
        config: Mirror and precision.
        classifier: The network whose CAMs are read. It is used up: not to be called any more.
        attention_from: The network whose patch attention refines them, or None.
        device: Where to compute.
    """
    for network in filter(None, (classifier, attention_from)):
        network.to(device).to(memory_format=torch.channels_last)
    if attention_from is not classifier:
        classifier = lean_classifier(classifier, dtype=convolution_dtype(device, config.precision))
        release_freed_memory()
    return CamSource(
        classifier=classifier,
        attention_from=attention_from,
        mirror=config.mirror,
        device=device,
    )


def _attention_model(
    config: ExportConfig, trained: CamModel, model: Path, path: Path | None
) -> CamModel | None:
    """Return the transformer whose attention refines the CAMs; None: no refinement."""
    if config.refine == "none":
        return None
    if path is not None:
        lender = CLASSIFIER.load(path)
        if not lender.network.gives_attention:
            raise UserError(
                f"a model of method '{lender.settings.method}' has no attention between patches",
                where=path,
                expected="the CAM model of a run with method mct or acr-vit",
                fix="name such a run in export.refine_from",
            )
        return lender
    if config.refine_from is not None:
        raise UserError(
            f"export.refine_from names the run '{config.refine_from}', but its model was not given",
            where="--attention-model",
            expected=f"the CAM model of run '{config.refine_from}'",
            fix=f"--attention-model results/{config.refine_from}/cam/model.safetensors",
        )
    if not trained.network.gives_attention:
        raise UserError(
            f"export.refine is '{config.refine}', but a model of method "
            f"'{trained.settings.method}' has no attention between patches",
            where=model,
            expected="a transformer to take the attention from",
            fix="name a run with method mct or acr-vit in export.refine_from, or set export.refine "
            "to none",
        )
    return trained


def _announce(source: CamSource, records: Sequence[ImageRecord], config: ExportConfig) -> None:
    """Say what is computed in, and what memory is known to be needed."""
    dtype = resolve_precision(source.device, config.precision)
    if isinstance(source.classifier, LeanClassifier):
        dtype = source.classifier.dtype
    words = f"{source.weight_bytes() / 1e6:.0f} MB of weights"
    if source.attention_from is not None:
        sizes = {(record.height, record.width) for record in records}
        most = max((source.attention_bytes(size, config.scales) for size in sizes), default=0)
        words += f", about {most / 1e6:.0f} MB of patch attention for the largest view"
    name = str(dtype).removeprefix("torch.")
    print(f"export CAMs: {name} on {source.device}, {words}", file=sys.stderr)
