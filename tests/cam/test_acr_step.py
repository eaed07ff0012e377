from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

from wsss.cam import losses
from wsss.cam.methods import acr
from wsss.cam.methods.acr import AcrMethod
from wsss.cam.methods.acr_config import AcrConfig, AcrSettings, AcrWeights
from wsss.cam.methods.plain import PlainMethod
from wsss.cam.methods.step_inputs import is_deterministic
from wsss.errors import UserError
from wsss.models.config import BackboneConfig
from wsss.runtime.settings import replace
from wsss.training.descent import NonFiniteStep, take_step
from wsss.training.step import StepContext

CPU = torch.device("cpu")


SMALL = AcrSettings(
    backbone=BackboneConfig(weights="none"),
    crop_px=64,
    batch_size=2,
    precision="float32",
    acr=AcrConfig(decoder_depth=4, decoder_width=4, decode_px=32),
)


def context(step: int = 0, epoch: int = 0) -> StepContext:
    return StepContext(
        device=CPU,
        epoch=epoch,
        step=step,
        total_steps=10,
        generator=torch.Generator().manual_seed(step),
        rng=np.random.default_rng(step),
    )


@pytest.fixture
def batch() -> dict[str, Any]:
    generator = torch.Generator().manual_seed(5)
    valid = torch.ones(2, 1, 64, 64, dtype=torch.bool)
    valid[1, :, 50:] = False
    label = torch.tensor([[1.0, 0, 1], [0, 1, 0]])
    return {"image": torch.rand(2, 3, 64, 64, generator=generator), "valid": valid, "label": label}


def build(config: AcrSettings = SMALL) -> AcrMethod:
    torch.manual_seed(1)
    return AcrMethod(config, 3, device=CPU)


def without_dropout(method: AcrMethod) -> AcrMethod:
    for part in method.reconstructor.modules():
        if isinstance(part, _DropoutNd):
            part.p = 0.0
    return method


def parameters(module: nn.Module) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in module.named_parameters()}


def naive_step(method: AcrMethod, inputs: acr.StepInputs) -> Iterator[Tensor]:
    """Both updates straight from the paper: one decoder call a reconstruction, one pass each."""
    classifier, net, side = method.classifier, method.reconstructor, inputs.side_px
    y, image, w = inputs.label, inputs.image, method.config.acr.weights
    bce = F.binary_cross_entropy_with_logits

    def up(x: Tensor) -> Tensor:
        return F.interpolate(x, size=(side, side), mode="bilinear", align_corners=False)

    def masked(mask: Tensor, out: Tensor) -> Tensor:
        return (mask * (out - image)).abs().mean()

    classifier.eval()
    with torch.no_grad():
        _, cam = classifier(inputs.x)
        a = up(losses.normalise_cam(cam)[range(2), inputs.target][:, None])
    g = inputs.grid
    logits, x = net.encode(inputs.x)
    s_t, s_nt = a + (1 - a) * g, (1 - a) + a * g
    yield (
        w.ru_class * bce(logits, y)
        + w.ru_full * (net.decode(up(x.detach())) - image).abs().mean()
        + w.ru_target * masked((1 - a) * (1 - g), net.decode(up(x) * s_t))
        + w.ru_nontarget * masked(a * (1 - g), net.decode(up(x) * s_nt))
    )
    net.eval()
    classifier.train()
    logits, cam = classifier(inputs.x)
    a = up(losses.normalise_cam(cam)[range(2), inputs.target][:, None])
    with torch.no_grad():
        _, x = net.encode(inputs.x)
    winner = (up(cam).argmax(1) == inputs.target[:, None, None])[:, None]
    yield (
        w.cu_class * bce(logits, y)
        - w.cu_target * masked((a == 0).float(), net.decode(up(x) * a))
        - w.cu_nontarget * masked(a.detach() * winner, net.decode(up(x) * (1 - a)))
    )


# Each another one than by default, and than the others.
WEIGHTS = AcrWeights(
    ru_class=0.6, ru_full=0.35, ru_target=0.9, ru_nontarget=0.15,
    cu_class=1.7, cu_target=0.55, cu_nontarget=0.4,
)  # fmt: skip


@pytest.mark.setting("cam.acr.weights.ru_class", "cam.acr.weights.ru_full")
@pytest.mark.setting("cam.acr.weights.ru_target", "cam.acr.weights.ru_nontarget")
@pytest.mark.setting("cam.acr.weights.cu_class", "cam.acr.weights.cu_target")
@pytest.mark.setting("cam.acr.weights.cu_nontarget")
def test_a_step_is_the_naive_step(batch):
    config = replace(SMALL, acr=replace(SMALL.acr, weights=WEIGHTS))
    ours, naive = without_dropout(build(config)), without_dropout(build(config))
    logged = take_step(ours, batch, context())
    inputs = naive.prepare(batch, context())
    totals = []
    for name, total in zip(("reconstructor", "classifier"), naive_step(naive, inputs), strict=True):
        for optimizer in naive.optimizers.values():
            optimizer.zero_grad()
        total.backward()
        naive.optimizers[name].step()
        totals.append(float(total.detach()))
    assert float(logged["ru_total"]) == pytest.approx(totals[0], rel=1e-5)
    assert float(logged["cu_total"]) == pytest.approx(totals[1], rel=1e-5)
    for name, module in ours.modules.items():
        theirs = parameters(naive.modules[name])
        moved = 0
        before = parameters(build().modules[name])
        for key, value in parameters(module).items():
            step = float((theirs[key] - before[key]).abs().max())
            moved += step > 0
            assert float((value - theirs[key]).abs().max()) <= 1e-3 * step + 1e-7, key
        assert moved > 20


def test_each_update_has_gradient_to_its_own_network_only(batch):
    method = build()
    inputs = method.prepare(batch, context())
    logits, cam = method.classifier(inputs.x)
    method.reconstructor_terms(inputs, cam).total.backward()
    assert all(p.grad is None for p in method.classifier.parameters())
    kept = {n: p.grad.clone() for n, p in method.reconstructor.named_parameters()
            if p.grad is not None}  # fmt: skip
    assert any("decoder" in n for n in kept) and any("gather" in n for n in kept)
    method.classifier_terms(inputs, logits, cam).total.backward()
    for name, parameter in method.reconstructor.named_parameters():
        if name in kept:
            assert torch.equal(parameter.grad, kept[name])
            assert parameter.requires_grad
    assert method.reconstructor.training
    assert method.classifier.head.classes.weight.grad.abs().max() > 0


def test_same_draws_same_step(batch):
    results = []
    for _ in range(2):
        method = build()
        torch.manual_seed(9)
        take_step(method, batch, context(3))
        results.append(parameters(method.classifier))
    assert all(torch.equal(results[0][key], results[1][key]) for key in results[0])


def test_a_loss_that_is_not_finite_moves_nothing(batch):
    batch["image"][0, 0, 0, 0] = math.nan
    for method in (build(), PlainMethod(SMALL, 3, device=CPU)):
        before = parameters(method.classifier)
        with pytest.raises(NonFiniteStep):
            take_step(method, batch, context())
        after = parameters(method.classifier)
        assert all(torch.equal(before[key], after[key]) for key in before)


def test_a_finite_loss_with_gradients_that_are_not_moves_nothing(batch, monkeypatch):
    # No image has enough of a non-target segment for its term, and one of those segments
    # has overflowed: behind the decoder's layers, 0 times what came of it is no number.
    monkeypatch.setattr(losses, "SMALLEST_SEGMENT_PX", 1e9)
    method = build()

    def overflow(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        masked = inputs[0].clone()
        masked[4] = torch.inf  # images, then target segments, then non-target segments, two each
        return (masked, *inputs[1:])

    handle = method.reconstructor.decoder.register_forward_pre_hook(overflow)
    inputs = method.prepare(batch, context())
    terms = method.reconstructor_terms(inputs, method.classifier(inputs.x)[1])
    assert bool(torch.isfinite(torch.stack(list(terms))).all())
    before = parameters(method.reconstructor)
    with pytest.raises(NonFiniteStep, match="its gradients are not finite"):
        take_step(method, batch, context())
    after = parameters(method.reconstructor)
    assert all(torch.equal(before[key], after[key]) for key in before)
    handle.remove()
    take_step(method, batch, context())
    assert any(not torch.equal(before[k], v) for k, v in parameters(method.reconstructor).items())


@pytest.mark.setting("cam.acr.srf")
def test_grid_follows_the_settings(batch):
    off = build(replace(SMALL, acr=replace(SMALL.acr, srf=False)))
    assert off.prepare(batch, context()).grid is None
    assert "q" not in take_step(off, batch, context())
    one = replace(SMALL.acr, q_initial=1.0, q_decay=0.0, grid_min=4, grid_max=4)
    grid = build(replace(SMALL, acr=one)).prepare(batch, context(epoch=5)).grid
    assert grid.shape == (2, 1, 32, 32)
    assert torch.equal(grid, torch.ones_like(grid))
    assert SMALL.acr.q(0) == 0.8
    assert SMALL.acr.q(7) == pytest.approx(0.73)
    assert SMALL.acr.q(1000) == 0


@pytest.mark.setting("cam.acr.decode_px")
def test_padding_is_zero_for_the_network_and_the_aim(batch):
    config = replace(SMALL, acr=replace(SMALL.acr, decode_px=None))
    inputs = build(config).prepare(batch, context())
    assert inputs.image.shape == (2, 3, 64, 64)
    assert float(inputs.x[1, :, 50:].abs().max()) == 0
    assert float(inputs.image[1, :, 50:].abs().max()) == 0
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    expected = (batch["image"][0] - mean.view(3, 1, 1)) / std.view(3, 1, 1)
    assert torch.allclose(inputs.image[0], expected, atol=1e-6)


def test_one_pass_is_shared_only_where_training_mode_changes_nothing():
    assert is_deterministic(build().classifier)
    unfrozen = build(replace(SMALL, freeze_batchnorm=False))
    assert not is_deterministic(unfrozen.classifier)
    with_dropout = nn.Sequential(nn.Conv2d(3, 3, 1), nn.Dropout2d(0.2))
    assert not is_deterministic(with_dropout)


# Learning rate, momentum, weight decay; factors of heads, transposed convolutions, the decoder.
RATES = [(0.01, 0.9, 5e-4, 10.0, 10.0, 1.0), (0.02, 0.5, 1e-3, 7.0, 3.0, 5.0)]


@pytest.mark.setting("cam.learning_rate", "cam.momentum", "cam.weight_decay", "cam.head_lr_factor")
@pytest.mark.setting("cam.acr.transposed_lr_factor", "cam.acr.decoder_lr_factor")
@pytest.mark.parametrize("rates", RATES, ids=["default", "other"])
def test_learning_rate_factors(rates):
    learning_rate, momentum, decay, of_heads, of_transposed, of_decoder = rates
    acr = replace(SMALL.acr, transposed_lr_factor=of_transposed, decoder_lr_factor=of_decoder)
    own = {"learning_rate": learning_rate, "momentum": momentum, "weight_decay": decay}
    method = build(replace(SMALL, acr=acr, head_lr_factor=of_heads, **own))
    rate_of: dict[int, tuple[float, float, float]] = {}
    for optimizer in method.optimizers.values():
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                assert id(parameter) not in rate_of
                settings = (group["lr"], group["weight_decay"], group["momentum"])
                rate_of[id(parameter)] = settings
    for module in method.modules.values():
        for name, parameter in module.named_parameters():
            if not parameter.requires_grad:
                assert id(parameter) not in rate_of
                continue
            rate = learning_rate * (2 if name.endswith("bias") else 1)
            if ".up." in name:
                rate *= of_transposed
            elif "head" in name:
                rate *= of_heads
            elif "decoder" in name or "gather" in name:
                rate *= of_decoder
            expected = (rate, 0 if name.endswith("bias") else decay, momentum)
            assert rate_of[id(parameter)] == pytest.approx(expected), name


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"crop_px": 224, "acr": AcrConfig(decode_px=None, decoder_depth=8)}, "256, 512"),
        ({"acr": AcrConfig(decode_px=100)}, "32, 64"),
        ({"epochs": 0}, "epochs"),
        ({"momentum": 1.0}, "momentum"),
        ({"long_side_min_px": 600}, "long_side_max_px"),
    ],
)
def test_impossible_settings_name_their_key(changes, named):
    with pytest.raises(UserError, match=named):
        AcrSettings(**changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"q_initial": 1.5},
        {"q_decay": -0.1},
        {"grid_min": 9, "grid_max": 8},
        {"decoder_depth": 1},
        {"feature_levels": (1, 2)},
        {"feature_levels": (-1, 2, 4)},
    ],
)
def test_impossible_reconstructors(changes):
    with pytest.raises(UserError):
        AcrConfig(**changes)


@pytest.mark.setting("cam.acr.decoder_precision")
def test_a_bfloat16_decoder_keeps_the_losses(batch):
    terms = {}
    for precision in ("same", "bfloat16"):
        config = replace(SMALL, acr=replace(SMALL.acr, decoder_precision=precision))
        method = build(config)
        inputs = method.prepare(batch, context(0))
        logits, cam = method.classifier(inputs.x)
        method.reconstructor.eval()
        ru = method.reconstructor_terms(inputs, cam)
        cu = method.classifier_terms(inputs, logits, cam)
        terms[precision] = torch.stack([*ru, *cu]).detach()
    difference = (terms["same"] - terms["bfloat16"]).abs() / terms["same"].abs().clamp(min=1e-3)
    assert 0 < float(difference.max()) < 0.02
