"""The CAM methods `mct` and `acr-vit`: losses, updates, settings, augmentation, training."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from cam_settings import as_method
from hub_helpers import COMMIT, cached_repository
from safetensors.torch import save_file
from vit_helpers import CPU, TINY, VIT, train, write_data

from wsss.cam.losses import classification_loss
from wsss.cam.methods.acr import AcrMethod
from wsss.cam.methods.acr_vit_config import AcrVitSettings
from wsss.cam.methods.plain import PlainMethod
from wsss.cam.methods.transformer_config import VitConfig
from wsss.cam.model_file import CLASSIFIER, cam_task
from wsss.cam.training import ClassificationImages
from wsss.data.augment import rand_augment, random_erasing
from wsss.data.index import read_index
from wsss.data.transforms import normalise
from wsss.errors import UserError
from wsss.models.vit_classifier import TransformerClassifier
from wsss.models.weights import load_model_file
from wsss.runtime.settings import replace
from wsss.training.descent import take_step
from wsss.training.step import StepContext


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def context(step: int = 0) -> StepContext:
    return StepContext(
        device=CPU,
        epoch=0,
        step=step,
        total_steps=10,
        generator=torch.Generator().manual_seed(3),
        rng=np.random.default_rng(step),
    )


@pytest.fixture
def batch() -> dict[str, Any]:
    generator = torch.Generator().manual_seed(5)
    valid = torch.ones(2, 1, 32, 32, dtype=torch.bool)
    label = torch.tensor([[1.0, 0, 1], [0, 1, 0]])
    return {"image": torch.rand(2, 3, 32, 32, generator=generator), "valid": valid, "label": label}


def build(name: str, config: AcrVitSettings = TINY) -> Any:
    torch.manual_seed(1)
    return cam_task(as_method(config, name), 3, device=CPU)


def test_the_methods_are_the_two_tasks_with_another_classifier():
    assert type(build("mct")) is PlainMethod
    assert type(build("acr-vit")) is AcrMethod
    for name in ("mct", "acr-vit"):
        assert isinstance(build(name).classifier, TransformerClassifier)


def test_loss_is_the_sum_of_two_soft_margin_losses(batch):
    task = build("mct")
    x = normalise(batch["image"], task.classifier.normalisation)
    with torch.no_grad():
        output = task.classifier.network(x)
        expected = sum(
            F.multilabel_soft_margin_loss(logit.double(), batch["label"].double())
            for logit in (output.class_logit, output.patch_logit)
        )
        both = classification_loss(task.classifier.classify(x), batch["label"])
        through_forward = classification_loss(task.classifier(x)[0], batch["label"])
    assert float(both) == pytest.approx(float(expected), rel=1e-5)
    assert float(through_forward) == pytest.approx(float(expected), rel=1e-4)
    assert float(take_step(task, batch, context())["loss"]) == pytest.approx(
        float(expected), rel=1e-5
    )


def test_adversarial_terms_reach_both_factors_of_the_fused_cam(batch):
    task = build("acr-vit")
    inputs = task.prepare(batch, context())
    logits, cam = task.classifier(inputs.x)
    terms = task.classifier_terms(inputs, logits.detach(), cam)
    weights = TINY.acr.weights
    adversarial = -weights.cu_target * terms.target - weights.cu_nontarget * terms.nontarget
    adversarial.backward()
    gradients = {n: p.grad for n, p in task.classifier.network.named_parameters()}
    # The patch CAM's convolution, and the queries and keys of the class attention.
    assert float(gradients["head.weight"].abs().sum()) > 0
    assert float(gradients["blocks.0.attn.qkv.weight"].abs().sum()) > 0
    # The last layer's queries act on the fused CAM through the class attention alone.
    queries = gradients["blocks.1.attn.qkv.weight"][:192]
    assert float(queries.abs().sum()) > 0
    assert all(p.grad is None for p in task.reconstructor.parameters())


def test_target_map_is_the_fused_cam_by_the_step_normalisation(batch):
    task = build("acr-vit")
    inputs = task.prepare(batch, context())
    with torch.no_grad():
        output = task.classifier.network(inputs.x, attention="class")
        ours = task.target_map(inputs, task.classifier(inputs.x)[1])
    for number, target in enumerate(inputs.target.tolist()):
        a = (output.class_attention * output.patch_map.relu())[number, target].double()
        low, high = a.min(), a.max()
        expected = F.relu(a - low - 1e-5) / (high - low + 1e-5)
        expected = F.interpolate(expected[None, None], size=(32, 32), mode="bilinear")
        torch.testing.assert_close(ours[number].double(), expected[0], rtol=1e-3, atol=1e-4)


def test_drop_path_asks_for_a_pass_of_each_update(batch):
    with_drop = replace(TINY, vit=replace(VIT, drop_path=0.5))
    modes: list[bool] = []
    for config in (TINY, with_drop):
        task = build("acr-vit", config)
        task.classifier.register_forward_hook(lambda module, *_: modes.append(module.training))
        take_step(task, batch, context())
    assert modes == [True, False, True]


def test_weight_decay_spares_vectors_tokens_and_positions():
    task = build("acr-vit")
    network = task.classifier.network
    decay = {
        id(parameter): group["weight_decay"]
        for group in task.optimizers["classifier"].param_groups
        for parameter in group["params"]
    }
    assert len(decay) == len(list(network.parameters()))
    for name, parameter in network.named_parameters():
        spared = parameter.dim() <= 1 or name in ("cls_token", "pos_embed")
        assert decay[id(parameter)] == (0.0 if spared else 0.05), name
    assert isinstance(task.optimizers["classifier"], torch.optim.AdamW)
    assert isinstance(task.optimizers["reconstructor"], torch.optim.SGD)


def test_schedule_is_the_transformers_alone():
    published = VitConfig(name="deit_tiny_patch16_224", depth=2, class_attention_layers=2)
    config = replace(TINY, vit=published, batch_size=64, epochs=60)
    task = build("acr-vit", config)
    assert list(task.schedules) == ["classifier"]
    peak = task.optimizers["classifier"].defaults["lr"]
    assert peak == pytest.approx(5e-4 * 64 / 512)
    factor = task.schedules["classifier"]
    assert peak * factor(0, 600) == pytest.approx(1e-6)
    assert peak * factor(25, 600) == pytest.approx((1e-6 + peak) / 2)
    assert peak * factor(300, 600) == pytest.approx((1e-5 + peak) / 2)
    assert peak * factor(600, 600) == pytest.approx(1e-5)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        # MCTformer's own rate at batch 8: its peak is below the cosine's end.
        ({"vit": replace(VIT, learning_rate_at_512=5e-4), "batch_size": 8}, "learning_rate_at_512"),
        ({"vit": replace(VIT, warmup_epochs=2.0)}, "warmup_epochs"),
        ({"erasing": 1.5}, "erasing"),
        ({"rand_augment_magnitude": 31}, "rand_augment_magnitude"),
    ],
)
def test_impossible_settings(changes, words):
    with pytest.raises(UserError, match=words):
        replace(TINY, **changes)


def test_a_crop_that_is_no_multiple_of_the_patch():
    config = replace(TINY, crop_px=40)
    with pytest.raises(UserError, match=r"crop_px is 40(.|\n)*32 or 48"):
        build("acr-vit", config)


def test_weights_without_a_file():
    config = replace(TINY, vit=replace(VIT, weights="deit"))
    with pytest.raises(UserError, match="transformer-weights-file"):
        build("mct", config)


@pytest.mark.setting("cam.vit.weights")
def test_weights_come_from_the_transformers_file(tmp_path):
    timm = pytest.importorskip("timm")
    plain = timm.create_model("deit_tiny_patch16_224", depth=2)
    torch.save(plain.state_dict(), tmp_path / "deit.pth")
    config = as_method(TINY, "mct", vit=replace(VIT, weights="deit"))
    task = cam_task(config, 3, device=CPU, transformer_weights_file=tmp_path / "deit.pth")
    ours = task.classifier.network
    assert torch.equal(ours.blocks[1].mlp.fc1.weight, plain.blocks[1].mlp.fc1.weight)
    assert torch.equal(ours.cls_token, plain.cls_token.repeat(1, 3, 1))


def test_weights_by_name_stand_in_the_model_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    timm = pytest.importorskip("timm")
    folder = cached_repository(monkeypatch, tmp_path, "timm/deit_tiny_patch16_224.fb_in1k")
    plain = timm.create_model("deit_tiny_patch16_224", depth=2)
    save_file(plain.state_dict(), folder / "model.safetensors")
    config = as_method(TINY, "mct", vit=replace(VIT, weights="timm"), ema=0.5)
    network = cam_task(config, 3, device=CPU).classifier
    CLASSIFIER.save(tmp_path / "m.safetensors", network, config, classes="abc", training={})
    _, metadata = load_model_file(tmp_path / "m.safetensors", "cam")
    (found,) = metadata["weights"]
    assert (found["name"], found["revision"]) == ("timm/deit_tiny_patch16_224.fb_in1k", COMMIT)


# Augmentation


def test_erasing_is_noise_in_one_rectangle():
    image = torch.full((3, 40, 50), 0.5)
    assert random_erasing(image, np.random.default_rng(0), 0.0) is image
    areas = []
    for seed in range(40):
        erased = random_erasing(image, np.random.default_rng(seed), 1.0)
        assert torch.equal(image, torch.full((3, 40, 50), 0.5))
        changed = (erased != image).any(dim=0)
        rows, columns = torch.where(changed)
        box = changed[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
        assert bool(box.all())
        areas.append(box.numel() / changed.numel())
    assert 0.01 < min(areas) < 0.1 < max(areas) < 0.36
    times = sum(
        random_erasing(image, np.random.default_rng(seed), 0.25) is not image for seed in range(400)
    )
    assert 60 < times < 145
    noise = random_erasing(torch.zeros(3, 200, 200), np.random.default_rng(1), 1.0)
    values = noise[0][noise[0] != 0]
    assert float(values.mean()) == pytest.approx(0.485, abs=0.03)
    assert float(values.std()) == pytest.approx(0.229, abs=0.03)


def test_rand_augment_depends_on_its_generator_alone():
    image = torch.randint(0, 256, (3, 24, 30), dtype=torch.uint8)
    torch.manual_seed(0)
    state = torch.random.get_rng_state()
    settings = {"operations": 2, "magnitude": 9}
    first = [rand_augment(image, np.random.default_rng(s), **settings) for s in range(6)]
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.manual_seed(1)
    again = [rand_augment(image, np.random.default_rng(s), **settings) for s in range(6)]
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert len({a.numpy().tobytes() for a in first}) > 3
    assert rand_augment(image, np.random.default_rng(0), operations=0, magnitude=9) is image


# Training


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("tiny"))


def test_training_with_every_augmentation_is_repeatable(data, tmp_path):
    config = as_method(
        TINY, "mct", rand_augment_operations=2, erasing=0.5, vit=replace(VIT, drop_path=0.2)
    )
    first, second = (train(data, tmp_path / name, config).read_bytes() for name in "ab")
    assert first == second
    assert first != train(data, tmp_path / "c", replace(config, erasing=0.0)).read_bytes()


@pytest.mark.setting("cam.erasing")
def test_augmentation_is_the_settings(data):
    index = read_index(data / "index.csv").training_set()
    plain = ClassificationImages(index, data, TINY).load(0, np.random.default_rng(0))["image"]
    erased = ClassificationImages(index, data, replace(TINY, erasing=1.0))
    noisy = erased.load(0, np.random.default_rng(0))["image"]
    share = float((noisy != plain).any(dim=0).float().mean())
    assert 0 < share < 0.4
