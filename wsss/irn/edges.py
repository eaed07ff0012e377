"""IRNet's boundaries of images, and all that is left to do to one image on a CPU."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from wsss.data.images import read_sized_image
from wsss.data.index import ImageRecord
from wsss.data.transforms import image_to_tensor, normalise
from wsss.irn.config import PseudoLabelsConfig
from wsss.irn.model_file import IRNET
from wsss.irn.random_walk import random_walk
from wsss.irn.walked import Finisher, WalkJob
from wsss.models.irnet import IrNet, edge_map
from wsss.models.lean import lean_backbone
from wsss.models.model_file import kept
from wsss.runtime.compute import cast_to, convolution_dtype

_CPU = torch.device("cpu")


@dataclass(frozen=True)
class EdgeFinder:
    """A trained IRNet as it is applied to images; `edge_finder` makes one.

    Attributes:
        network: On `device`.
        mirror: Whether mirrored images are averaged in.
        device: Where the network is.
        dtype: What its convolutions compute in.
    """

    network: IrNet
    mirror: bool
    device: torch.device
    dtype: torch.dtype

    @torch.inference_mode()
    def __call__(self, pictures: Sequence[np.ndarray]) -> Tensor:
        """Return the boundaries of images of one size.

        Args:
            pictures: (H, W, 3) uint8 RGB each.

        Returns:
            (B, h, w) float32 in 0..1 at stride 4, on `device`.
        """
        image = torch.stack([image_to_tensor(picture) for picture in pictures]).to(self.device)
        normalised = normalise(image.float().div_(255), self.network.backbone.normalisation)
        normalised = normalised.contiguous(memory_format=torch.channels_last)
        with cast_to(self.device, self.dtype):
            return edge_map(self.network, normalised, mirror=self.mirror)


def edge_finder(model: Path, config: PseudoLabelsConfig, device: torch.device) -> EdgeFinder:
    """Bring the network of a model file to `device` in the form that is applied fastest.

    Raises:
        UserError: The file is missing, damaged, of another stage, or of another version.
    """
    network = IRNET.load(model).network
    network.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    dtype = convolution_dtype(device, config.precision)
    network.backbone = lean_backbone(network.backbone, dtype=dtype)
    return EdgeFinder(network, config.mirror, device, dtype)


@dataclass(frozen=True)
class Walker:
    """Boundaries and walk of one image on a CPU; picklable, for the pool."""

    config: PseudoLabelsConfig
    model: Path
    root: Path

    def __call__(self, job: WalkJob) -> WalkJob:
        """Return the job with its CAMs walked."""
        config = self.config
        picture = read_sized_image(self.root, job.record)
        edge = kept(edge_finder, self.model, config, _CPU)([picture])[0]
        walked = random_walk(
            torch.from_numpy(job.maps),
            edge,
            radius=config.radius,
            beta=config.beta,
            steps=config.steps,
        )
        return WalkJob(job.record, job.class_indices, walked.numpy())


@dataclass(frozen=True)
class Labeller:
    """Boundaries, walk, scores and label PNG of one image on a CPU; picklable, for the pool."""

    config: PseudoLabelsConfig
    model: Path
    root: Path
    folder: Path

    def __call__(self, job: WalkJob) -> tuple[ImageRecord, np.ndarray, np.ndarray]:
        """Walk the job's CAMs; write the label PNG; return what `Finisher` returns."""
        walked = Walker(self.config, self.model, self.root)(job)
        return Finisher(self.config, self.folder)(walked)
