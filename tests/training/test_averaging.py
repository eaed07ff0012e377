"""Averaged weights and softened labels, against the same by hand."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from cam_settings import as_method
from distributed_cases import CAM, CLASSES, CPU, Pictures
from torch import Tensor
from torch.utils.data import default_collate

from wsss.cam.losses import classification_loss
from wsss.cam.model_file import cam_task
from wsss.data.loader import random_generator
from wsss.segmentation.losses import pixel_cross_entropy
from wsss.training.averaging import WeightAverage, average_decay
from wsss.training.checkpoint import load_checkpoint, save_checkpoint
from wsss.training.descent import NonFiniteStep, take_step
from wsss.training.distributed import Split
from wsss.training.schedule import poly
from wsss.training.step import Plan


def test_average_of_weights_by_hand() -> None:
    network = torch.nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        network.weight.fill_(1.0)
    average = WeightAverage(network, decay=0.15)
    expected = 1.0
    for update, value in enumerate((2.0, 4.0, 8.0)):
        with torch.no_grad():
            network.weight.fill_(value)
        average.update(network)
        decay = min(0.15, (1 + update) / (10 + update))
        expected = decay * expected + (1 - decay) * value
        assert float(average.network.weight) == pytest.approx(expected)
    assert average_decay(0.999, 0) == 0.1
    assert average_decay(0.999, 10**6) == 0.999


def test_what_is_frozen_is_neither_copied_nor_kept_twice(tmp_path: Path) -> None:
    frozen, head = torch.nn.Linear(100, 100).requires_grad_(False), torch.nn.Linear(100, 1)
    network = torch.nn.Sequential(frozen, head)
    average = WeightAverage(network, decay=0.5)
    assert average.network[0].weight is frozen.weight and average.network[0] is not frozen
    before = frozen.weight.clone()
    with torch.no_grad():
        head.weight.fill_(1.0)
    average.update(network)
    assert not average.network[1].weight.requires_grad and head.weight.requires_grad
    assert torch.equal(frozen.weight, before)
    modules = {"network": network, "average": average}
    path = tmp_path / "checkpoint.pt"
    save_checkpoint(path, identity={}, step=3, modules=modules, optimizers={})
    assert path.stat().st_size < 1.5 * before.nbytes
    expected, again = weights(average), torch.nn.Sequential(*copy.deepcopy([frozen, head]))
    restored = WeightAverage(again, decay=0.5)
    modules = {"network": again, "average": restored}
    assert load_checkpoint(path, identity={}, modules=modules, optimizers={}) == 3
    assert same(restored, expected)


def weights(module: torch.nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in module.state_dict().items()}


def same(left: torch.nn.Module, right: dict[str, Tensor]) -> bool:
    return all(torch.equal(value, right[name]) for name, value in left.state_dict().items())


def test_averaging_leaves_the_training_as_it_is() -> None:
    pictures = Pictures(64, 8)
    batch = default_collate([pictures.load(i, random_generator(i)) for i in range(8)])
    plan = Plan("test", 4, 8, 1, 0, 0, 1, {"classifier": poly}, Split())
    tasks = []
    for ema in (0.0, 0.9):
        torch.manual_seed(1)
        tasks.append(cam_task(as_method(CAM, "cam", ema=ema), CLASSES, device=CPU))
    plain, averaged = tasks
    for step in range(3):
        for task in tasks:
            take_step(task, batch, plan.context(step, CPU))
    trained = weights(plain.classifier)
    assert same(averaged.modules["classifier"], trained)
    assert not same(averaged.classifier, trained)
    # A step that is not taken is not averaged.
    before = weights(averaged.modules["average"])
    spoilt = {**batch, "image": torch.full_like(batch["image"], torch.nan)}
    with pytest.raises(NonFiniteStep):
        take_step(averaged, spoilt, plan.context(3, CPU))
    assert same(averaged.modules["average"], before)


def test_softened_image_labels_are_the_mixture_of_labels() -> None:
    logits, label = torch.randn(2, 3), torch.tensor([[1.0, 0, 1], [0, 1, 0]])
    half = classification_loss(logits, torch.full_like(label, 0.5))
    mixed = 0.9 * classification_loss(logits, label) + 0.1 * half
    assert float(classification_loss(logits, label, 0.1)) == pytest.approx(float(mixed))


def test_softened_pixel_labels_are_the_mixture_of_labels() -> None:
    logits = torch.randn(2, 4, 3, 3)
    target = torch.randint(0, 4, (2, 3, 3))
    target[0, 0, 0] = 255
    kept = (target != 255).reshape(-1)
    logs = F.log_softmax(logits, dim=1).permute(0, 2, 3, 1).reshape(-1, 4)[kept]
    hard = F.one_hot(target.reshape(-1)[kept], 4).float()
    expected = -((0.8 * hard + 0.2 / 4) * logs).sum(dim=1).mean()
    found = pixel_cross_entropy(logits, target, None, 0.2)
    assert float(found) == pytest.approx(float(expected), rel=1e-5)
