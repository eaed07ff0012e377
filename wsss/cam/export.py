"""Export stage: the CAMs of every tagged image into one map store."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from wsss.cam.config import CamSettings, ExportConfig
from wsss.cam.inference import multi_scale_cam
from wsss.cam.methods.registry import METHODS
from wsss.cam.model_file import CLASSIFIER, CamModel
from wsss.cam.source import CamSource, MapSource, SourceBuilder, SourceFiles, View
from wsss.data.images import read_sized_image
from wsss.data.index import TRAINING_SETS, ImageRecord, Index, read_index
from wsss.errors import UserError
from wsss.files import content_hash, read_json
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
from wsss.runtime.registry import chosen_modules, load_code
from wsss.runtime.settings import Precision, to_dict


def export_cams(
    *,
    config: ExportConfig,
    index: Path,
    root: Path,
    output: Path,
    compute: InferenceCompute,
    model: Path | None = None,
    attention_model: Path | None = None,
    clusters: Path | None = None,
    cam: Path | None = None,
    other_cams: Path | None = None,
    weights_file: Path | None = None,
    seeds_root: Path | None = None,
    shard: Shard = WHOLE,
) -> None:
    """Write the CAMs of the training images, and of the images that seeds are scored on.

    Args:
        config: Scales, mirror, refinement, precision.
        index: index.csv.
        root: Folder that the index's paths are relative to.
        output: Map store to write (HDF5).
        compute: Device and threads.
        model: The trained classifier (safetensors).
        attention_model: The trained transformer of the run that `config.refine_from` names.
        clusters: LPCAM's clusters of the classifier's features, where `config.refine` is `lpcam`.
        cam: In place of a model, the settings of a CAM method that trains nothing (JSON).
        other_cams: The map store of another run, where those settings name one.
        weights_file: The weight file or folder that those settings name by a key.
        seeds_root: The folder of maps or masks that those settings name by a key.
        shard: The part of the images to export.

    Raises:
        UserError: The model knows other classes than the index, an image became unreadable, or
            there is no transformer, or no clusters of this classifier, to refine with; or there is
            not one of `model` and `cam`.
    """
    device = setup(compute, seed=0)
    known = _part(read_index(index), shard)
    records = known.records
    if (model is None) == (cam is None):
        raise UserError(
            "both a trained model and settings of a method without one were given"
            if model is not None
            else "neither a trained model nor settings of a method without one were given",
            where="--model, --cam",
            expected="one of the two",
        )
    source: MapSource
    if cam is not None:
        files = SourceFiles(weights_file, other_cams, seeds_root)
        source, modules = _untrained(config, cam, known, device, files)
    else:
        assert model is not None
        source, modules = _trained(
            config, model, (attention_model, clusters), known, records, device
        )

    def load(record: ImageRecord) -> tuple[ImageRecord, Any]:
        return record, source.prepare(record, root)

    attributes: dict[str, Attribute] = {
        # Whose model it is decides nothing beside the model, which is told by its own identity.
        "config": content_hash({k: v for k, v in to_dict(config).items() if k != "model_from"}),
        "code": closure_hash(__name__, *sorted(modules)),
        "normalisation": "max-min per class",
        "scales": " ".join(map(str, config.scales)),
        "mirror": int(config.mirror),
        "precision": config.precision,
        "refine": config.refine,
        **source.attributes,
    }
    print(f"export CAMs: {source.description}", file=sys.stderr)
    with (
        torch.inference_mode(),
        autocast(device, config.precision),
        MapStoreWriter(output, classes=known.classes, attributes=attributes) as store,
    ):
        # A GPU is through with an image before one thread has the next one ready.
        threads = compute.workers if device.type == "cuda" else min(1, compute.workers)
        loaded = ordered_map(load, records, threads, threads=True, ahead=max(4, 2 * threads))
        for record, prepared in progress(loaded, total=len(records), description="export CAMs"):
            size = (record.height, record.width)
            indices = known.class_indices(record)
            maps = source.maps(prepared, indices, size)
            store.add(record.name, indices, maps.cpu().numpy(), size)
    if device.type == "cuda":
        peak = torch.cuda.max_memory_allocated(device) / 1e9
        print(f"export CAMs: {peak:.2f} GB of GPU memory at most", file=sys.stderr)


def _part(known: Index, shard: Shard) -> Index:
    """Return the images of a shard."""
    exported = known.records.tagged & known.records.in_sets(TRAINING_SETS)
    chosen = np.flatnonzero(exported)
    return known.part(chosen[shard.bounds(len(chosen))])


def _untrained(
    config: ExportConfig,
    settings: Path,
    index: Index,
    device: torch.device,
    files: SourceFiles,
) -> tuple[MapSource, set[str]]:
    """Return the source of a method that trains nothing, and the modules with its code."""
    parsed = METHODS.parse(read_json(settings), where=str(settings))
    assert isinstance(parsed, CamSettings)
    method = METHODS.get(parsed.method, where=str(settings))
    if method.source is None:
        raise UserError(
            f"the CAM method '{method.name}' needs a trained model",
            where=settings,
            fix="give the model (--model) rather than its settings",
        )
    build: SourceBuilder = load_code(method.source)
    source = build(parsed, config, index, device=device, files=files)
    return source, set(chosen_modules(parsed))


@dataclass(frozen=True)
class ClassifierSource:
    """The CAMs of a trained classifier, summed over views.

    Attributes:
        source: The classifier, and what refines its CAMs.
        config: Scales and mirror.
        attributes: Where the maps come from, for the map store.
        description: What is computed in, and how much memory it takes.
    """

    source: CamSource
    config: ExportConfig
    attributes: Mapping[str, str | int | float]
    description: str

    def prepare(self, record: ImageRecord, root: Path) -> list[View]:
        """Return a picture at all scales."""
        return self.source.views(read_sized_image(root, record), self.config.scales)

    def maps(
        self, prepared: Sequence[View], class_indices: Sequence[int], size: tuple[int, int]
    ) -> Tensor:
        """Return the CAMs of some classes, (K, (H-1)//4+1, (W-1)//4+1) float32 in 0..1."""
        return multi_scale_cam(
            partial(self.source.cam, class_indices=class_indices),
            prepared,
            size=size,
            mirror=self.config.mirror,
            epsilon=self.source.classifier.map_epsilon,
        )


def _trained(
    config: ExportConfig,
    model: Path,
    refine_with: tuple[Path | None, Path | None],
    known: Index,
    records: Sequence[ImageRecord],
    device: torch.device,
) -> tuple[MapSource, set[str]]:
    """Return the source of a trained classifier, and the modules with its method's code."""
    attention_model, clusters = refine_with
    if config.refine == "patch-attention" and device.type == "cpu":
        # Attention takes memory of its own: beside ResNet-38 in float32 this saves 300 MB.
        return_large_blocks()
    trained = CLASSIFIER.load(model)
    if trained.classes != known.classes:
        raise UserError(
            "the model was trained for other classes than the index has",
            where=model,
            expected=", ".join(known.classes),
            fix="train the CAM model on this index",
        )
    attention = _attention_model(config, trained, model, attention_model)
    attentive = None if attention is None else attention.network
    check_clusters(config, clusters)
    source = cam_source(config.precision, trained.network, attentive, device, mirror=config.mirror)
    attributes = {"model": trained.identity}
    if attention is not None:
        attributes["attention_model"] = attention.identity
    models = [trained] if attention is None else [trained, attention]
    modules = {name for each in models for name in chosen_modules(each.settings)}
    description = _description(source, records, config)
    plain = ClassifierSource(source, config, attributes, description)
    if config.code is None:
        return plain, modules
    refined: MapSource = load_code(config.code)(
        source, config, model=model, clusters=clusters, plain=plain
    )
    return refined, modules | set(chosen_modules(config))


def check_clusters(config: ExportConfig, path: Path | None) -> None:
    """Check that clusters are given where they are asked for, and nowhere else."""
    if config.refine != "lpcam" and path is not None:
        raise UserError(
            f"clusters were given, and export.refine is '{config.refine}'",
            where="--clusters",
            fix="leave --clusters away, or set export.refine to lpcam",
        )
    if config.refine == "lpcam" and path is None:
        raise UserError(
            "export.refine is 'lpcam', and no clusters were given",
            where="--clusters",
            expected="what `wsss lpcam` makes of this model's features",
            fix="--clusters results/RUN/lpcam.safetensors",
        )


def cam_source(
    precision: Precision,
    classifier: Classifier,
    attention_from: Classifier | None,
    device: torch.device,
    *,
    mirror: bool,
) -> CamSource:
    """Bring the networks to `device`, in the form in which they give CAMs fastest.

    Args:
        precision: Arithmetic of the networks.
        classifier: The network whose CAMs are read. It is used up: not to be called any more.
        attention_from: The network whose patch attention refines them, or None.
        device: Where to compute.
        mirror: Whether to read the mirror image of a view, too.
    """
    for network in filter(None, (classifier, attention_from)):
        network.to(device).to(memory_format=torch.channels_last)
    if attention_from is not classifier:
        if device.type == "mps":
            # BatchNorm is folded in float64, which Apple's GPUs do not have.
            classifier.cpu()
        classifier = lean_classifier(classifier, dtype=convolution_dtype(device, precision))
        classifier.to(device)
        release_freed_memory()
    return CamSource(
        classifier=classifier,
        attention_from=attention_from,
        mirror=mirror,
        device=device,
    )


def _attention_model(
    config: ExportConfig, trained: CamModel, model: Path, path: Path | None
) -> CamModel | None:
    """Return the transformer whose attention refines the CAMs; None: no refinement."""
    if config.refine != "patch-attention":
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


def _description(source: CamSource, records: Sequence[ImageRecord], config: ExportConfig) -> str:
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
    return f"{name} on {source.device}, {words}"
