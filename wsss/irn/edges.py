"""IRNet's boundaries of images, and all that is left to do to one image on a CPU."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from wsss.data.index import ImageRecord
from wsss.data.transforms import image_to_tensor, normalise
from wsss.irn.config import PseudoLabelsConfig
from wsss.irn.inputs import read_sized_image
from wsss.irn.model_file import load_irn_model
from wsss.irn.random_walk import random_walk
from wsss.irn.walked import Finisher, WalkJob
from wsss.models.irnet import IrNet, edge_map
from wsss.training.compute import autocast

_CPU = torch.device("cpu")


def edge_network(model: Path, device: torch.device) -> IrNet:
    """Return the network of a model file on `device`, ready for `image_edges`.

    Raises:
        UserError: The file is missing, damaged, of another stage, or of another version.
    """
    network = load_irn_model(model)
    network.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return network


@torch.inference_mode()
def image_edges(
    config: PseudoLabelsConfig,
    network: IrNet,
    pictures: Sequence[np.ndarray],
    device: torch.device,
) -> Tensor:
    """Return the boundaries of images of one size.

    Args:
        config: Mirror and precision.
        network: On `device`.
        pictures: (H, W, 3) uint8 RGB each.
        device: Where the network is.

    Returns:
        (B, h, w) float32 in 0..1 at stride 4, on `device`.
    """
    image = torch.stack([image_to_tensor(picture) for picture in pictures]).to(device)
    normalised = normalise(image.float().div_(255), network.backbone.normalisation)
    normalised = normalised.contiguous(memory_format=torch.channels_last)
    with autocast(device, config.precision):
        return edge_map(network, normalised, mirror=config.mirror)


# One a process of the pool. The stamp stands for the file's content.
@lru_cache(maxsize=1)
def _kept_network(model: Path, stamp: tuple[int, int]) -> IrNet:
    return edge_network(model, _CPU)


@dataclass(frozen=True)
class Labeller:
    """Boundaries, walk, scores and label PNG of one image on a CPU; picklable, for the pool."""

    config: PseudoLabelsConfig
    model: Path
    root: Path
    folder: Path

    def __call__(self, job: WalkJob) -> tuple[ImageRecord, np.ndarray, np.ndarray]:
        """Walk the job's CAMs; write the label PNG; return what `Finisher` returns."""
        config = self.config
        picture = read_sized_image(self.root, job.record)
        status = self.model.stat() if self.model.exists() else None
        stamp = (0, 0) if status is None else (status.st_mtime_ns, status.st_size)
        network = _kept_network(self.model, stamp)
        edge = image_edges(config, network, [picture], _CPU)[0]
        walked = random_walk(
            torch.from_numpy(job.maps),
            edge,
            radius=config.radius,
            beta=config.beta,
            steps=config.steps,
        )
        finished = WalkJob(job.record, job.class_indices, walked.numpy())
        return Finisher(config, self.folder)(finished)
