"""Training of DeepLab on label maps (the stage's entry point)."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from wsss.data.index import contents_hash, read_index
from wsss.data.labelled import LabelledImages
from wsss.data.transforms import normalise
from wsss.files import content_hash
from wsss.models.deeplab import DeepLab
from wsss.models.vit_features import VitFeatures, keep_features
from wsss.provenance import closure_hash
from wsss.runtime.cache import cache_folder
from wsss.runtime.compute import FeatureCompute, autocast, setup
from wsss.runtime.processes import Processes
from wsss.runtime.registry import chosen_modules
from wsss.runtime.settings import to_dict
from wsss.segmentation.config import SegmentationConfig
from wsss.segmentation.labels import find_labels
from wsss.segmentation.losses import labelled_pixels, multi_scale_loss
from wsss.segmentation.model_file import SEGMENTATION, build_network
from wsss.segmentation.training_pictures import segmentation_pictures
from wsss.training.averaging import AveragedTask
from wsss.training.checkpoint import initial_weights
from wsss.training.loop import finish, train
from wsss.training.step import OnePhaseTask, Part, TrainingTask


def parameter_groups(network: DeepLab, config: SegmentationConfig) -> list[dict[str, Any]]:
    """Split the trainable parameters by learning rate and decay.

    The head learns faster than the backbone, whose weights are a start worth keeping; biases and
    BatchNorm are not decayed, decaying them only biases the output.
    """
    head = {id(parameter) for parameter in network.head.parameters()}
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for parameter in network.parameters():
        if not parameter.requires_grad:
            continue
        is_vector = parameter.ndim == 1
        factor = 1.0
        if id(parameter) in head:
            factor = config.head_bias_lr_factor if is_vector else config.head_lr_factor
        decay = 0.0 if is_vector else config.weight_decay
        groups.setdefault((factor, decay), []).append(parameter)
    return [
        {"params": parameters, "lr": config.learning_rate * factor, "weight_decay": decay}
        for (factor, decay), parameters in groups.items()
    ]


class SegmentationTask(OnePhaseTask):
    """The network, its optimiser and its losses."""

    def __init__(self, network: DeepLab, config: SegmentationConfig, device: torch.device) -> None:
        self._config = config
        # channels_last: convolutions on CPUs and tensor cores run fastest in it.
        self.network = network.to(device).to(memory_format=torch.channels_last).train()
        optimizer = torch.optim.SGD(
            parameter_groups(network, config), lr=config.learning_rate, momentum=config.momentum
        )
        self.modules = {"network": self.network}
        self.optimizers = {"network": optimizer}

    def count(self, batch: Mapping[str, Any]) -> Tensor:
        """Return the labelled pixels."""
        return labelled_pixels(batch["target"])

    def losses(self, part: Part, count: Tensor | None) -> Mapping[str, Tensor]:
        """Return the loss of a part with `image`, `valid` and `target`."""
        batch = part.batch
        image = normalise(batch["image"], self.network.backbone.normalisation, batch["valid"])
        image = image.contiguous(memory_format=torch.channels_last)
        with autocast(image.device, self._config.precision):
            loss = multi_scale_loss(
                self.network,
                image,
                batch["target"],
                self._config.loss_scales,
                count,
                self._config.label_smoothing,
            )
        return {"total": loss}


def _keep_features(network: DeepLab, config: SegmentationConfig, gigabytes: float) -> None:
    """Keep the features of a frozen transformer, where its pictures are the same every time."""
    body = network.backbone.body
    if not isinstance(body, VitFeatures) or not body.frozen:
        reason = "the backbone is no frozen transformer (segmentation.backbone.frozen)"
    elif config.augment:
        reason = "its pictures are drawn at random (segmentation.augment)"
    else:
        folder, limit = cache_folder() / "features", int(gigabytes * 1e9)
        keep_features(body, folder, limit, processes=Processes.here().size)
        return
    print(f"train segmentation: no features are kept: {reason}", file=sys.stderr)


def train_segmentation(
    *,
    config: SegmentationConfig,
    labels: Path | None = None,
    masks: Path | None = None,
    index: Path,
    root: Path,
    output: Path,
    work_dir: Path,
    compute: FeatureCompute,
    weights_file: Path | None = None,
) -> None:
    """Train DeepLab and write its model file.

    Args:
        config: The stage's settings.
        labels: Folder of pseudo-label PNGs, or of predictions with `config.labels: predicted`; not
            read with `ground_truth`.
        masks: `masks.csv`; not read with `config.labels: pseudo` or `predicted`.
        index: `index.csv`.
        root: Data root.
        output: Model file to write.
        work_dir: Checkpoints and metrics.
        compute: Device, threads, workers, and whether features are kept.
        weights_file: The backbone's initial weights, where its settings name a file.

    Raises:
        UserError: A training image has no label map, or a setting cannot be honoured.
    """
    known = read_index(index).training_set()
    paths = find_labels(config, known, labels=labels, masks=masks, root=root)
    images = LabelledImages(config, known, root, paths, augment=config.augment)
    digest = images.labels_hash()
    device = setup(compute, config.seed, trains=True)
    network = build_network(config, len(known.classes), weights_file)
    if compute.feature_cache_gb:
        _keep_features(network, config, compute.feature_cache_gb)
    task: TrainingTask
    trained = task = SegmentationTask(network, config, device)
    result = trained.network
    if config.ema:
        task = averaged = AveragedTask(trained, trained.network, config.ema)
        result = averaged.result
    settings = to_dict(config)
    summary = train(
        task,
        images,
        epochs=config.epochs,
        batch_size=config.batch_size,
        seed=config.seed,
        compute=compute,
        work_dir=work_dir,
        identity={
            "code": closure_hash(__name__, *chosen_modules(config)),
            "stage": "segmentation",
            "settings": settings,
            "classes": list(known.classes),
            "images": content_hash(list(images.names)),
            "pictures": contents_hash(index, known),
            "labels": digest,
            **initial_weights(config, task.modules, weights_file=weights_file),
        },
        stage="segmentation",
        description=f"train segmentation ({config.labels} labels)",
        pictures=segmentation_pictures(result, images),
        lr_power=config.lr_power,
    )
    if not Processes.here().is_main:
        return
    training = {**asdict(summary), "labels": digest}
    SEGMENTATION.save(output, result, config, classes=known.classes, training=training)
    finish(work_dir)
