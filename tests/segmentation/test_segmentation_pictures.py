"""What TensorBoard shows of a segmentation training: the labels that it learns, and its own."""

from __future__ import annotations

import io
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from wsss.data.images import IGNORE, voc_palette
from wsss.models.backbones import IMAGENET
from wsss.segmentation.training_pictures import segmentation_pictures
from wsss.training.pictures import PANEL_PX

SIDE_PX = 64


class LeftHalf(nn.Module):
    """A network that sees class 2 in the left half of every picture, at stride 4."""

    backbone = SimpleNamespace(normalisation=IMAGENET)

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        logits = torch.zeros(len(x), 3, x.shape[2] // 4, x.shape[3] // 4)
        logits[:, 2, :, : logits.shape[3] // 2] = 3
        logits[:, 0, :, logits.shape[3] // 2 :] = 3
        return self.weight * logits


class Grey:
    """One grey picture, class 1 in its upper half, its lower right unlabelled."""

    names = ("grey",)

    def load(self, position: int, rng: np.random.Generator) -> dict[str, Any]:
        image = torch.full((3, SIDE_PX, SIDE_PX), 0.5)
        target = torch.zeros(SIDE_PX, SIDE_PX, dtype=torch.int64)
        target[:32] = 1
        target[32:, 32:] = IGNORE
        return {"image": image, "valid": image[:1] > 0, "target": target, "name": "grey"}


def colour(value: int) -> np.ndarray:
    return 0.4 * 128 + 0.6 * voc_palette()[value].astype(float)


def test_labels_and_prediction_are_beside_the_picture() -> None:
    network: Any = LeftHalf()
    (jpeg,) = segmentation_pictures(network, Grey()).drawn().values()
    with Image.open(io.BytesIO(jpeg)) as opened:
        assert opened.width == 3 * PANEL_PX + 2 * 4
        pixels = np.asarray(opened).astype(int)[-PANEL_PX:]
    step = PANEL_PX + 4
    crop, labels, prediction = (pixels[:, i * step :][:, :PANEL_PX] for i in range(3))
    grey = np.full(3, 128.0)
    near, far = PANEL_PX // 4, 3 * PANEL_PX // 4
    for panel, expected in (
        (crop, [grey, grey, grey, grey]),
        (labels, [colour(1), colour(1), grey, colour(IGNORE)]),
        (prediction, [colour(2), grey, colour(2), grey]),
    ):
        found = [panel[y, x] for y in (near, far) for x in (near, far)]
        assert np.abs(np.array(found) - np.array(expected)).max() < 12
