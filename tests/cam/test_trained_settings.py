"""Settings that all CAM trainings share, at other values than the defaults, against naive forms."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cam_settings import as_method
from conftest import write_tiny_data
from distributed_cases import CAM, CLASSES, CPU, one_thread_count
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from wsss.cam.methods.acr import AcrMethod
from wsss.cam.methods.oc_cse_config import ErasingConfig
from wsss.cam.methods.recam_config import ReactivationConfig
from wsss.cam.model_file import cam_task
from wsss.cam.training import ClassificationImages, train_cam
from wsss.data.augment import rand_augment
from wsss.data.build import build_index
from wsss.data.formats.folder import FolderSettings
from wsss.data.images import read_image
from wsss.data.index import read_index, write_index
from wsss.data.loader import random_generator
from wsss.data.transforms import (
    image_to_tensor,
    normalise,
    random_crop,
    random_flip,
    random_long_side,
)
from wsss.runtime.compute import Compute
from wsss.training.descent import take_step
from wsss.training.step import Phase, StepContext

OCCSE = {"occse": ErasingConfig(classifier_epochs=1), "epochs": 2}
RECAM = {"recam": ReactivationConfig(classifier_epochs=1), "epochs": 2}
# Each method with what its settings need; the second epoch has all losses that there are.
METHODS: dict[str, dict[str, Any]] = {
    "cam": {},
    "acr": {},
    "oc-cse": OCCSE,
    "recam": RECAM,
    "mct": {"crop_px": 32},
    "acr-vit": {"crop_px": 32},
}


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    with one_thread_count():
        torch.set_num_threads(1)
        yield


def build(method: str, **settings: Any) -> Any:
    torch.manual_seed(1)
    return cam_task(as_method(CAM, method, **METHODS[method], **settings), CLASSES, device=CPU)


def context(step: int, per_epoch: int = 1) -> StepContext:
    generator, rng = torch.Generator().manual_seed(step), np.random.default_rng(step)
    return StepContext(CPU, step // per_epoch, step, 2 * per_epoch, generator, rng)


def noise(side_px: int) -> dict[str, Any]:
    label = torch.tensor([[1.0, 0, 1], [0, 1, 0]])
    generator = torch.Generator().manual_seed(5)
    return {
        "image": torch.rand(2, 3, side_px, side_px, generator=generator),
        "valid": torch.ones(2, 1, side_px, side_px, dtype=torch.bool),
        "label": label,
    }


# --- losses --------------------------------------------------------------------------------------


def soft_binary_cross_entropy(logits: Tensor, label: Tensor, smoothing: float) -> float:
    """The mean over images and classes, one by one; of two scores, the sum of their means."""
    scores = logits.double()[:, None] if logits.dim() == 2 else logits.double()
    total = 0.0
    for score in scores.unbind(1):
        terms = []
        for z, y in zip(score.flatten().tolist(), label.flatten().tolist(), strict=True):
            aim = y * (1 - smoothing) + smoothing / 2
            terms.append(aim * math.log1p(math.exp(-z)) + (1 - aim) * math.log1p(math.exp(z)))
        total += sum(terms) / len(terms)
    return total


@pytest.mark.setting("cam.label_smoothing", "cam.precision")
@pytest.mark.parametrize("method", METHODS)
def test_labels_are_softened_and_networks_are_in_bfloat16(method: str) -> None:
    task = build(method, label_smoothing=0.3, precision="bfloat16")
    batch = noise(task.config.crop_px)
    if hasattr(task.classifier, "head"):  # so sure of itself that rounding shows
        with torch.no_grad():
            task.classifier.head.classes.weight.mul_(30)
    x = normalise(batch["image"], task.classifier.normalisation)
    x = x.contiguous(memory_format=torch.channels_last)
    exact, rounded = [], []
    with torch.no_grad():
        for classify in (task.classifier.classify, lambda x: task.classifier(x)[0]):
            exact.append(soft_binary_cross_entropy(classify(x), batch["label"], 0.3))
            with torch.autocast("cpu", dtype=torch.bfloat16):
                rounded.append(soft_binary_cross_entropy(classify(x), batch["label"], 0.3))
    logged = take_step(task, batch, context(1))
    name = {"acr": "cu_classification", "acr-vit": "cu_classification"}.get(method)
    name = name or ("classification" if "classification" in logged else "loss")
    found = float(logged[name])
    # A transformer's two ways to its scores round differently.
    assert min(abs(found - one) for one in rounded) < 1e-5 < min(abs(found - e) for e in exact)


# --- BatchNorm, the average ----------------------------------------------------------------------


def parts_with_batchnorm(task: Any) -> Iterator[nn.Module]:
    yield from (each for each in task.modules.values() if any_batchnorm(each))


def any_batchnorm(module: nn.Module) -> bool:
    return any(isinstance(part, _BatchNorm) for part in module.modules())


@pytest.mark.setting("cam.freeze_batchnorm")
@pytest.mark.parametrize("frozen", [True, False])
@pytest.mark.parametrize(("method", "networks"), [("cam", 1), ("acr", 2), ("recam", 1)])
def test_batchnorm_of_every_network_learns_or_does_not(
    method: str, networks: int, frozen: bool
) -> None:
    task = build(method, freeze_batchnorm=frozen)
    parts = list(parts_with_batchnorm(task))
    assert len(parts) == networks
    batch = noise(64)
    before = [{k: v.clone() for k, v in part.state_dict().items()} for part in parts]
    expected = []
    for part in parts:
        encoder = getattr(part, "encoder", part)
        stem = encoder.backbone.body
        x = normalise(batch["image"], encoder.normalisation)
        with torch.no_grad():
            mean = stem.conv_stem(x).mean(dim=(0, 2, 3))
        momentum = 0.0 if frozen else stem.bn1.momentum
        expected.append(stem.bn1.running_mean * (1 - momentum) + momentum * mean)
    take_step(task, batch, context(0))
    for part, state, mean in zip(parts, before, expected, strict=True):
        stem = getattr(part, "encoder", part).backbone.body
        # One batch has gone into the running mean, once.
        torch.testing.assert_close(stem.bn1.running_mean, mean, rtol=1e-4, atol=1e-5)
        name = next(key for key in state if key.endswith("bn1.weight"))
        assert torch.equal(part.state_dict()[name], state[name]) == frozen


@pytest.mark.setting("cam.ema")
@pytest.mark.parametrize("method", ["cam", "acr"])
def test_what_is_kept_is_the_average_of_the_weights(method: str) -> None:
    task, last = build(method, ema=0.15), build(method)
    batch, weights = noise(64), []
    for step in range(3):
        weights.append(last.classifier.head.classes.weight.detach().clone())
        for each in (task, last):
            torch.manual_seed(step)  # of dropout
            if step < 2:
                take_step(each, batch, context(step, per_epoch=2))
    # The first decay is 1 / 10, the second, which 2 / 11 would be, the setting's.
    average = 0.1 * weights[0] + 0.9 * weights[1]
    average = 0.15 * average + 0.85 * weights[2]
    found = task.classifier.head.classes.weight
    torch.testing.assert_close(found, average, rtol=1e-5, atol=1e-7)
    assert not torch.allclose(found, weights[2], rtol=1e-4, atol=1e-6)


# --- pictures ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("tiny")
    write_tiny_data(root)
    write_index(build_index(FolderSettings(), root), root / "index.csv")
    return root


@pytest.mark.setting("cam.crop_px", "cam.long_side_min_px", "cam.long_side_max_px")
@pytest.mark.setting("cam.rand_augment_operations", "cam.rand_augment_magnitude")
def test_pictures_are_made_as_by_hand(data: Path) -> None:
    config = as_method(
        CAM, "cam", crop_px=40, long_side_min_px=41, long_side_max_px=90,
        rand_augment_operations=3, rand_augment_magnitude=23,
    )  # fmt: skip
    index = read_index(data / "index.csv").training_set()
    images = ClassificationImages(index, data, config)
    for seed in range(6):
        rng = np.random.default_rng(seed)
        image = image_to_tensor(read_image(data / index.records[seed].path))
        image, _ = random_long_side(image, None, 41, 90, rng)
        image, _ = random_flip(image, None, rng)
        image = rand_augment(image, rng, operations=3, magnitude=23)
        expected = random_crop(image, None, 40, rng)
        found = images.load(seed, np.random.default_rng(seed))
        assert torch.equal(found["image"], expected.image)
        assert torch.equal(found["valid"], expected.valid)


# --- a whole training ----------------------------------------------------------------------------


@pytest.mark.setting("cam.epochs", "cam.batch_size", "cam.lr_power", "cam.learning_rate")
@pytest.mark.setting("cam.seed")
def test_steps_rates_and_draws_of_a_training(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = read_index(data / "index.csv").training_set()
    names = [record.name for record in index.records]
    config = as_method(
        CAM, "acr", crop_px=32, long_side_min_px=32, long_side_max_px=40,
        epochs=4, batch_size=3, lr_power=2.0, learning_rate=0.004, seed=7,
    )  # fmt: skip
    seen: list[tuple[int, list[str]]] = []
    rates: list[list[float]] = []
    first: dict[str, Tensor] = {}
    phases = AcrMethod.phases

    def watched(
        self: AcrMethod, batch: Mapping[str, Any], context: StepContext
    ) -> Iterator[Phase[Any]]:
        first.update({} if first else self.classifier.state_dict())
        first.update({key: value.clone() for key, value in first.items()})
        seen.append((context.epoch, list(batch["name"])))
        rates.append([opt.param_groups[0]["lr"] for opt in self.optimizers.values()])
        return phases(self, batch, context)

    monkeypatch.setattr(AcrMethod, "phases", watched)
    train_cam(
        config=config,
        index=data / "index.csv",
        root=data,
        output=tmp_path / "model.safetensors",
        work_dir=tmp_path / "work",
        compute=Compute(device="cpu", threads=1, workers=0),
    )
    # Eight pictures make two batches of three in each of four epochs.
    orders = [random_generator(7, epoch, "order").permutation(8) for epoch in range(4)]
    assert seen == [
        (epoch, [names[i] for i in order[start : start + 3]])
        for epoch, order in enumerate(orders)
        for start in (0, 3)
    ]
    for step, found in enumerate(rates):
        assert found == pytest.approx([0.004 * (1 - step / 8) ** 2] * 2)
    torch.manual_seed(7)
    begun = cam_task(config, 2, device=CPU).classifier.state_dict()
    assert all(torch.equal(first[key], begun[key]) for key in begun)


@pytest.mark.setting("cam.lr_power")
@pytest.mark.parametrize("method", ["oc-cse", "recam"])
def test_the_power_is_that_of_both_phases(method: str) -> None:
    factor = build(method, lr_power=2.0).schedules["classifier"]
    slow = factor(10, 20)
    assert [factor(step, 20) for step in (0, 5)] == [1.0, 0.25]
    assert factor(15, 20) == pytest.approx(0.25 * slow)


# --- optimisers of the methods without an adversary ----------------------------------------------


@pytest.mark.setting("cam.learning_rate", "cam.momentum", "cam.weight_decay", "cam.head_lr_factor")
@pytest.mark.parametrize("method", ["cam", "oc-cse", "recam"])
def test_rates_of_a_convolutional_classifier(method: str) -> None:
    own = {"learning_rate": 0.03, "momentum": 0.4, "weight_decay": 2e-3, "head_lr_factor": 6.0}
    task = build(method, freeze_batchnorm=False, **own)
    groups = {
        id(parameter): (group["lr"], group["weight_decay"], group["momentum"])
        for group in task.optimizers["classifier"].param_groups
        for parameter in group["params"]
    }
    named = dict(task.classifier.named_parameters())
    assert len(groups) == len(named)
    for name, parameter in named.items():
        of_head = 6.0 if name.startswith(("head", "second")) else 1.0
        bias = name.endswith("bias")
        rate = 0.03 * of_head * (2 if bias else 1)
        expected = (rate, 0.0 if bias else 2e-3, 0.4)
        assert groups[id(parameter)] == pytest.approx(expected), name
