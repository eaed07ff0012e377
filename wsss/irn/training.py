"""IRNet training stage: boundaries and displacements learnt from confident labels."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from wsss.data.index import contents_hash, read_index
from wsss.data.labelled import LabelledImages, label_pngs
from wsss.data.transforms import normalise
from wsss.files import content_hash
from wsss.irn.config import IrnConfig
from wsss.irn.losses import irn_losses, pair_counts
from wsss.irn.model_file import IRNET, build_irnet
from wsss.models.irnet import STRIDE, IrNet
from wsss.provenance import closure_hash
from wsss.runtime.compute import Compute, autocast, setup
from wsss.runtime.processes import Processes
from wsss.runtime.registry import chosen_modules
from wsss.runtime.settings import to_dict
from wsss.training.checkpoint import initial_weights
from wsss.training.loop import finish, train
from wsss.training.step import OnePhaseTask, Part, Phase, StepContext


def labels_at_stride(target: Tensor) -> Tensor:
    """Take (B, H, W) labels to the network's stride-4 map, nearest to each cell's centre."""
    height, width = target.shape[-2:]
    # One past the centre of four pixels; the last cell of a side may hold fewer than that.
    rows = torch.arange(0, height, STRIDE, device=target.device) + STRIDE // 2
    columns = torch.arange(0, width, STRIDE, device=target.device) + STRIDE // 2
    return target[..., rows.clamp_max(height - 1), :][..., columns.clamp_max(width - 1)]


class IrnTask(OnePhaseTask):
    """The network, its optimiser and its losses."""

    def __init__(self, network: IrNet, config: IrnConfig, device: torch.device) -> None:
        self._config = config
        network.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.network = network.train()
        rates = {"lr": config.learning_rate, "weight_decay": config.weight_decay}
        factor = config.displacement_lr_factor
        groups = [
            {"params": network.edge_parameters(), **rates},
            {
                "params": network.displacement_parameters(),
                **rates,
                "lr": factor * config.learning_rate,
            },
        ]
        self.modules = {"network": self.network}
        self.optimizers = {"network": torch.optim.SGD(groups, momentum=config.momentum)}

    def count(self, batch: Mapping[str, Any]) -> Tensor:
        """Return the pairs of each kind."""
        return pair_counts(labels_at_stride(batch["target"]), radius=self._config.radius)

    def phases(self, batch: Mapping[str, Any], context: StepContext) -> Iterator[Phase[Part]]:
        """Yield the phase; its batch has `image`, `valid` and `target`."""
        # The running mean of the displacements takes one step towards the mean of the batch:
        # the mean of the steps that the parts would take.
        shift = self.network.mean_shift.running_mean
        before, after = shift.clone(), torch.zeros_like(shift)

        def losses(part: Part, count: Tensor | None) -> Mapping[str, Tensor]:
            shift.copy_(before)
            terms = self.losses(part, count)
            after.add_(part.share * shift)
            return terms

        (phase,) = super().phases(batch, context)
        yield dataclasses.replace(phase, losses=losses)
        shift.copy_(context.split.processes.sum(after))

    def losses(self, part: Part, count: Tensor | None) -> Mapping[str, Tensor]:
        """Return the IRN losses of a part; `count` is the batch's pairs."""
        batch = part.batch
        image = normalise(batch["image"], self.network.backbone.normalisation, batch["valid"])
        image = image.contiguous(memory_format=torch.channels_last)
        with autocast(image.device, self._config.precision):
            edge, displacement = self.network(image)
        label = labels_at_stride(batch["target"])
        losses = irn_losses(
            edge[:, 0], displacement, label, radius=self._config.radius, pairs=count
        )
        return losses.scalars()


def train_irn(
    *,
    config: IrnConfig,
    labels: Path,
    index: Path,
    root: Path,
    output: Path,
    work_dir: Path,
    compute: Compute,
    weights_file: Path | None = None,
) -> None:
    """Train IRNet and write its model file.

    Args:
        config: The stage's settings.
        labels: Folder of confident-label PNGs.
        index: index.csv; its training set is used.
        root: Folder that the index's paths are relative to.
        output: Model file to write (safetensors).
        work_dir: Checkpoint and metrics.
        compute: Device, threads, workers.
        weights_file: The backbone's initial weights, where its settings name a file.

    Raises:
        UserError: An image has no labels, or a setting cannot be honoured.
    """
    training_set = read_index(index).training_set()
    paths = label_pngs(training_set, labels, fix="run the stage labels for this index")
    images = LabelledImages(config, training_set, root, paths)
    digest = images.labels_hash()
    device = setup(compute, config.seed, trains=True)
    task = IrnTask(build_irnet(config, weights_file=weights_file), config, device)
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
            "stage": "irn",
            "settings": to_dict(config),
            "images": content_hash(list(images.names)),
            "pictures": contents_hash(index, training_set),
            "labels": digest,
            **initial_weights(config, task.modules, weights_file=weights_file),
        },
        stage="irn",
        description="train IRNet",
        lr_power=config.lr_power,
    )
    if not Processes.here().is_main:
        return
    training = {**dataclasses.asdict(summary), "labels": digest}
    IRNET.save(output, task.network, config, training=training)
    finish(work_dir)
