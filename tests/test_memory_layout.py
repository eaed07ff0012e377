"""What goes through the networks lies in memory with its channels last, where it is fastest."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from distributed_cases import CASES, CPU, Pictures
from torch import Tensor, nn
from torch.utils.data import default_collate

from wsss.cam.inference import view_batch
from wsss.cam.training_pictures import cam_pictures
from wsss.data.loader import random_generator
from wsss.irn import edges
from wsss.models.backbones import IMAGENET, Backbone
from wsss.models.classifier import Classifier
from wsss.segmentation.inference import Segmenter, class_probabilities, views_of
from wsss.segmentation.training_pictures import segmentation_pictures
from wsss.training.descent import take_step
from wsss.training.distributed import Split
from wsss.training.schedule import poly
from wsss.training.step import Plan

PICTURE = np.random.default_rng(0).integers(0, 256, (40, 56, 3), dtype=np.uint8)


def channels_are_last(x: Tensor) -> bool:
    return x.is_contiguous(memory_format=torch.channels_last)


class Looks(Classifier):
    """A network that looks at how what it is given lies in memory."""

    normalisation = IMAGENET
    backbone = SimpleNamespace(normalisation=IMAGENET)

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))
        self.seen: list[bool] = []

    def look(self, x: Tensor) -> Tensor:
        self.seen.append(channels_are_last(x))
        return self.weight * x[..., ::8, ::8]


class Labels(Looks):
    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        return self.look(x)


class Maps(Looks):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x.mean((2, 3)), self.look(x)


def test_pictures_that_are_segmented() -> None:
    network = Labels()
    segments = Segmenter(network, IMAGENET, 16, CPU, torch.float32)
    with torch.inference_mode():
        class_probabilities(segments, views_of(PICTURE, (1.0,)), mirror=True)
    assert network.seen == [True, True]


def test_pictures_that_become_maps() -> None:
    image = torch.from_numpy(PICTURE).permute(2, 0, 1).contiguous()
    for mirror in (False, True):
        batch = view_batch(image, IMAGENET, mirror=mirror, device=CPU)
        assert channels_are_last(batch)
        # From 0..255 to 0..1, and normalised.
        mean, std = (torch.tensor(each).view(3, 1, 1) for each in (IMAGENET.mean, IMAGENET.std))
        torch.testing.assert_close(batch[0], (image / 255 - mean) / std, rtol=0, atol=1e-5)


def test_pictures_whose_edges_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bool] = []

    def edge_map(network: Any, image: Tensor, *, mirror: bool) -> Tensor:
        seen.append(channels_are_last(image))
        return image[:, 0]

    monkeypatch.setattr(edges, "edge_map", edge_map)
    edges.EdgeFinder(Labels(), False, CPU, torch.float32)([PICTURE, PICTURE])  # type: ignore[arg-type]
    assert seen == [True]


class Noise:
    """One picture of noise, of class 1."""

    names = ("noise",)

    def load(self, position: int, rng: np.random.Generator) -> dict[str, Any]:
        image = torch.rand(3, 32, 32)
        label, target = torch.tensor([0.0, 1.0, 0.0]), torch.zeros(32, 32, dtype=torch.int64)
        valid = image[:1] >= 0
        return {"image": image, "valid": valid, "label": label, "target": target, "name": "noise"}


def test_pictures_that_a_training_shows() -> None:
    maps, labels = Maps(), Labels()
    cam_pictures(maps, Noise(), ("a", "b", "c")).drawn()
    segmentation_pictures(labels, Noise()).drawn()  # type: ignore[arg-type]
    assert maps.seen == labels.seen == [True]


@pytest.mark.parametrize("name", ["cam", "acr", "irn", "deeplab v2"])
def test_batches_that_are_trained_with(name: str) -> None:
    case = CASES[name]
    task, _ = case.build()
    seen: list[bool] = []

    def look(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        seen.append(channels_are_last(inputs[0]))

    for network in task.modules.values():
        for part in network.modules():
            if isinstance(part, Backbone):
                part.register_forward_pre_hook(look)
    shown = Pictures(case.side_px, 4)
    batch = default_collate([shown.load(i, random_generator(i)) for i in range(4)])
    plan = Plan("test", 1, 4, 1, 0, 0, 1, dict.fromkeys(task.optimizers, poly), Split())
    take_step(task, batch, plan.context(0, CPU))
    assert seen and all(seen)
