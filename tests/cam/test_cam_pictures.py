"""What TensorBoard shows of a CAM training: where the CAM is, for every tag."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from wsss.cam.training_pictures import cam_pictures
from wsss.models.backbones import IMAGENET
from wsss.models.classifier import Classifier
from wsss.training.pictures import PANEL_PX

SIDE_PX = 64
CLASSES = ("a", "b", "c", "d", "e", "f")


class Corners(Classifier):
    """A classifier whose CAM of class 1 is in the upper left, of all others in the lower right."""

    normalisation = IMAGENET

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        cam = torch.full((len(x), len(CLASSES), 4, 4), -1.0)
        cam[:, :, 2:, 2:] = 5
        cam[:, 1] = cam[:, 0].flip(-1, -2)
        return cam.mean((-1, -2)), self.weight * cam


class Grey:
    """One grey picture with tags."""

    names = ("grey",)

    def __init__(self, *tags: int) -> None:
        self.label = torch.zeros(len(CLASSES))
        self.label[list(tags)] = 1

    def load(self, position: int, rng: np.random.Generator) -> dict[str, Any]:
        image = torch.full((3, SIDE_PX, SIDE_PX), 0.5)
        return {"image": image, "valid": image[:1] > 0, "label": self.label, "name": "grey"}


def panels(*tags: int) -> list[np.ndarray]:
    (jpeg,) = cam_pictures(Corners(), Grey(*tags), CLASSES).drawn().values()
    with Image.open(io.BytesIO(jpeg)) as opened:
        pixels = np.asarray(opened).astype(int)[-PANEL_PX:]
    step = PANEL_PX + 4
    assert (pixels.shape[1] + 4) % step == 0
    return [pixels[:, x : x + PANEL_PX] for x in range(0, pixels.shape[1], step)]


def test_each_tag_has_its_cam() -> None:
    crop, first, second = panels(1, 4)
    assert np.abs(crop[8:-8, 8:-8] - 128).max() <= 3  # JPEG's blocks bleed at the borders
    for heat, hot, cold in ((first, 32, -32), (second, -32, 32)):
        red, _, blue = heat[hot, hot]
        assert red > blue + 60
        red, _, blue = heat[cold, cold]
        assert blue > red + 60


def test_a_picture_without_tags_is_shown_alone() -> None:
    assert len(panels()) == 1


def test_many_tags_make_no_endless_strip() -> None:
    assert len(panels(*range(6))) == 1 + 4
