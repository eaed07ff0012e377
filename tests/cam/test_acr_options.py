"""ACR in phases, with a bound on its adversary, an anchor and a guard; OC-CSE."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from cam_settings import as_method
from torch import Tensor

from wsss.cam import losses
from wsss.cam.erasing import Anchor, erasing_loss, frozen, remaining_labels
from wsss.cam.methods.acr import AcrMethod
from wsss.cam.methods.acr_config import AcrConfig, AcrSettings
from wsss.cam.methods.adversary_settings import AcrSchedule, CollapseGuard
from wsss.cam.methods.guard import Watch
from wsss.cam.methods.oc_cse_config import ErasingConfig
from wsss.cam.methods.plain import build_classifier
from wsss.cam.model_file import cam_task
from wsss.errors import UserError
from wsss.models.config import BackboneConfig
from wsss.runtime.settings import replace
from wsss.training.descent import take_step
from wsss.training.distributed import Split
from wsss.training.step import StepContext

CPU = torch.device("cpu")
SMALL = AcrSettings(
    backbone=BackboneConfig(name="test_efficientnet", weights="none"),
    crop_px=64,
    batch_size=2,
    precision="float32",
    learning_rate=0.001,
    epochs=6,
    acr=AcrConfig(
        decoder_depth=4,
        decoder_width=4,
        decode_px=32,
        feature_levels=(1, 2),
        feature_channels=(4, 4),
    ),
)


def context(step: int = 0, per_epoch: int = 2, **changes: Any) -> StepContext:
    return StepContext(
        device=CPU,
        epoch=step // per_epoch,
        step=step,
        total_steps=6 * per_epoch,
        generator=torch.Generator().manual_seed(step),
        rng=np.random.default_rng(step),
        **changes,
    )


@pytest.fixture
def batch() -> dict[str, Any]:
    generator = torch.Generator().manual_seed(5)
    label = torch.tensor([[1.0, 0, 1], [0, 1, 0]])
    valid = torch.ones(2, 1, 64, 64, dtype=torch.bool)
    valid[1, :, 50:] = False
    return {"image": torch.rand(2, 3, 64, 64, generator=generator), "valid": valid, "label": label}


def build(config: Any = SMALL, **other: Any) -> Any:
    torch.manual_seed(1)
    return cam_task(config, 3, device=CPU, **other)


def acr(**changes: Any) -> AcrSettings:
    return replace(SMALL, acr=replace(SMALL.acr, **changes))


def take(method: Any, batch: dict[str, Any], at: StepContext) -> Any:
    """Take a step; dropout draws from the global generator, which the training loop seeds."""
    torch.manual_seed(at.step)
    return take_step(method, batch, at)


def weights(module: torch.nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in module.state_dict().items()}


def moved(before: dict[str, Tensor], module: torch.nn.Module) -> bool:
    return any(not torch.equal(before[name], value) for name, value in module.state_dict().items())


# --- phases --------------------------------------------------------------------------------------


@pytest.mark.setting("cam.acr.schedule.classifier_epochs", "cam.acr.schedule.reconstructor_epochs")
def test_in_each_phase_only_its_network_moves(batch) -> None:
    schedule = AcrSchedule(classifier_epochs=2, reconstructor_epochs=1)
    method = build(acr(schedule=schedule))
    expected = {0: (True, False), 3: (True, False), 4: (False, True), 5: (False, True)}
    expected |= {6: (True, True), 11: (True, True)}
    for step, (classifier, reconstructor) in expected.items():
        before = weights(method.classifier), weights(method.reconstructor)
        logged = take(method, batch, context(step))
        after = moved(before[0], method.classifier), moved(before[1], method.reconstructor)
        assert after == (classifier, reconstructor), step
        assert ("ru_total" in logged, "cu_total" in logged) == (step >= 4, step >= 6)


@pytest.mark.setting("cam.acr.schedule.joint_lr_factor")
def test_learning_rates_begin_anew_when_both_learn() -> None:
    schedule = AcrSchedule(classifier_epochs=2, reconstructor_epochs=1, joint_lr_factor=0.2)
    factors = build(acr(schedule=schedule)).schedules
    classifier = [factors["classifier"](step, 60) for step in range(60)]  # 10 steps an epoch
    assert classifier[0] == 1.0
    assert classifier[10] == pytest.approx(0.5**0.9)
    assert classifier[20:30] == [0.0] * 10
    assert classifier[30] == 0.2
    assert classifier[45] == pytest.approx(0.2 * 0.5**0.9)
    reconstructor = [factors["reconstructor"](step, 60) for step in range(60)]
    assert reconstructor[:20] == [0.0] * 20
    assert reconstructor[20] == 1.0
    assert reconstructor[40] == pytest.approx(0.5**0.9)
    assert build().schedules == {}


def test_adversarial_weights_grow_over_the_ramp() -> None:
    schedule = AcrSchedule(classifier_epochs=1, ramp_epochs=0.5)
    assert [schedule.adversary(step, 8) for step in (8, 9, 11, 12, 40)] == [0.25, 0.5, 1, 1, 1]
    assert AcrSchedule().adversary(0, 8) == 1.0


@pytest.mark.setting("cam.acr.schedule.ramp_epochs")
def test_a_ramp_scales_the_adversarial_gradient_alone(batch) -> None:
    ramped = build(acr(schedule=AcrSchedule(ramp_epochs=4.0)))  # 8 steps: the first has 1/8
    lowered = build(
        acr(weights=replace(SMALL.acr.weights, cu_target=0.8 / 8, cu_nontarget=0.3 / 8))
    )
    whole = build()
    for method in (ramped, lowered, whole):
        take(method, batch, context(0))
    assert not moved(weights(ramped.classifier), lowered.classifier)
    assert moved(weights(ramped.classifier), whole.classifier)


def test_remnants_count_the_reconstructors_epochs(batch) -> None:
    later = build(acr(schedule=AcrSchedule(classifier_epochs=3), q_decay=0.1))
    assert float(take(later, batch, context(6))["q"]) == 0.8
    assert float(take(later, batch, context(8))["q"]) == pytest.approx(0.7)


# --- balance -------------------------------------------------------------------------------------


def naive_gradients(method: AcrMethod, inputs: Any) -> tuple[Tensor, Tensor]:
    """Both gradients at the CAM, from a CAM cut off from the network: one loss at a time."""
    w = method.config.acr.weights
    with torch.no_grad():
        _, cam = method.classifier(inputs.x)
    found = []
    for index in range(2):
        leaf = cam.clone().requires_grad_(True)
        terms = method.classifier_terms(inputs, leaf.mean(dim=(2, 3)), leaf)
        loss = (
            w.cu_class * terms.classification,
            -w.cu_target * terms.target - w.cu_nontarget * terms.nontarget,
        )[index]
        loss.backward()
        assert leaf.grad is not None
        found.append(leaf.grad)
    return found[0], found[1]


def test_gradient_norms_are_those_at_the_cam(batch) -> None:
    method = build()
    for group in method.optimizers["reconstructor"].param_groups:
        group["lr"] = 0.0  # so that the naive form meets the same reconstructor
    of_labels, of_adversary = naive_gradients(method, method.prepare(batch, context()))
    logged = take(method, batch, context())
    assert float(logged["cu_class_gradient"]) == pytest.approx(float(of_labels.norm()), rel=1e-4)
    norm = float(of_adversary.norm())
    assert float(logged["cu_adversarial_gradient"]) == pytest.approx(norm, rel=1e-4)
    assert norm > 0


@pytest.mark.setting("cam.acr.balance")
@pytest.mark.parametrize("quotient", [0.25, 4.0])
def test_balance_is_scaled_weights_where_the_bound_is_exceeded(batch, quotient) -> None:
    """A bound at a quarter of what the quotient is quarters the adversarial weights."""
    logged = take(build(), batch, context())
    measured = float(logged["cu_adversarial_gradient"]) / float(logged["cu_class_gradient"])
    bounded = build(acr(balance=quotient * measured))
    found = take(bounded, batch, context())
    scale = min(1.0, quotient)
    assert float(found["cu_adversarial_scale"]) == pytest.approx(scale, rel=1e-4)
    w = SMALL.acr.weights
    same = build(acr(weights=replace(w, cu_target=scale * 0.8, cu_nontarget=scale * 0.3)))
    take(same, batch, context())
    start = weights(build().classifier)
    for name, value in bounded.classifier.state_dict().items():
        step = float((value - start[name]).abs().max())
        assert torch.allclose(value, same.classifier.state_dict()[name], atol=2e-3 * step + 1e-8)


def test_balance_refuses_parts_of_a_batch(batch) -> None:
    method = build(acr(balance=1.0))
    with pytest.raises(UserError, match="in 2 parts"):
        take(method, batch, context(split=Split(micro_batch=1)))


# --- anchor --------------------------------------------------------------------------------------


def test_erasing_loss_by_hand() -> None:
    label = torch.tensor([[1.0, 0, 1], [0, 1, 0]])
    target = torch.tensor([2, 1])
    assert remaining_labels(label, target).tolist() == [[1, 0, 0], [0, 0, 0]]
    logits = torch.tensor([[2.0, -1, 0], [-3, 1, 0]])
    terms = [math.log1p(math.exp(x)) for x in (-2, -1, 0, -3, 1, 0)]
    assert float(erasing_loss(logits, label, target)) == pytest.approx(sum(terms) / 6)


@pytest.mark.setting("cam.acr.anchor")
def test_the_anchor_is_the_classifier_as_it_is_when_both_begin(batch, monkeypatch) -> None:
    method = build(acr(anchor=0.5, schedule=AcrSchedule(classifier_epochs=1)))
    erasing, missed = method._erasing, []

    def seen(*arguments: Any) -> torch.Tensor:
        missed.append(erasing(*arguments))
        return missed[-1]

    monkeypatch.setattr(method, "_erasing", seen)
    for step in (0, 1):
        take(method, batch, context(step))
    begun = weights(method.classifier)
    for step in (2, 3):
        logged = take(method, batch, context(step))
    assert not moved(begun, method.anchor)
    assert moved(begun, method.classifier)
    assert "anchor" in method.modules
    assert all(p.grad is None and not p.requires_grad for p in method.anchor.parameters())
    # The whole batch in one part: its mean as it is.
    assert float(logged["cu_anchor"]) == pytest.approx(float(missed[-1].detach()))
    total = float(logged["cu_classification"]) + 0.5 * float(logged["cu_anchor"])
    total -= 0.8 * float(logged["cu_target"]) + 0.3 * float(logged["cu_nontarget"])
    assert float(logged["cu_total"]) == pytest.approx(total, rel=1e-4)


def test_an_erased_map_that_hides_more_is_rewarded(batch) -> None:
    """The loss is the naive one, and its gradient reaches the classifier."""
    torch.manual_seed(7)
    anchor = frozen(build_classifier(SMALL, 3))
    config = replace(acr(anchor=0.5, anchor_from="other"))
    method = build(config, anchor=Anchor(anchor, "digest"))
    assert "anchor" not in method.modules
    inputs = method.prepare(batch, context())
    _, cam = method.classifier(inputs.x)
    maps = losses.normalise_cam(cam)[range(2), inputs.target][:, None]
    maps = F.interpolate(maps, size=(64, 64), mode="bilinear", align_corners=False)
    rest = batch["label"].clone()
    rest[range(2), inputs.target] = 0
    with torch.no_grad():
        seen = anchor(inputs.x * (1 - maps))[0]
    expected = F.binary_cross_entropy_with_logits(seen, rest)
    found = method._erasing(inputs, cam)
    assert float(found.detach()) == pytest.approx(float(expected), rel=1e-5)
    (gradient,) = torch.autograd.grad(found, cam)
    chosen = gradient[range(2), inputs.target]
    assert float(chosen.abs().max()) > 0
    assert float(gradient.abs().sum()) == pytest.approx(float(chosen.abs().sum()))


@pytest.mark.setting("cam.occse.anchor", "cam.occse.classifier_epochs")
@pytest.mark.setting("cam.occse.joint_lr_factor", "cam.method")
def test_oc_cse_is_the_plain_classifier_and_the_erasing_loss(batch) -> None:
    settings = ErasingConfig(anchor=0.7, classifier_epochs=2, joint_lr_factor=0.5)
    config = as_method(SMALL, "oc-cse", occse=settings)
    method, plain = build(config), build(as_method(SMALL, "cam"))
    for step in range(4):
        take(method, batch, context(step))
        take(plain, batch, context(step))
    assert not moved(weights(plain.classifier), method.classifier)
    logged = take(method, batch, context(4))
    assert not moved(weights(plain.classifier), method.anchor)
    assert moved(weights(plain.classifier), method.classifier)
    total = float(logged["classification"]) + 0.7 * float(logged["anchor"])
    assert float(logged["loss"]) == pytest.approx(total, rel=1e-6)
    assert method.schedules["classifier"](20, 60) == 0.5


def test_both_learn_after_the_epochs_of_each_alone() -> None:
    assert AcrSchedule(classifier_epochs=2, reconstructor_epochs=1).first_joint_epoch == 3
    assert AcrSchedule().first_joint_epoch == 0


# --- guard ---------------------------------------------------------------------------------------


def feed(watch: Watch, *values: tuple[float, float]) -> None:
    for value in values:
        watch.observe(torch.tensor(value[0]), torch.tensor(value[1]))


@pytest.mark.setting(
    "cam.acr.guard.map_mean", "cam.acr.guard.class_loss", "cam.acr.guard.window_steps"
)
def test_guard_stops_where_the_maps_or_the_loss_are_beyond_a_bound() -> None:
    config = CollapseGuard(map_mean=0.2, class_loss=2.0, window_steps=2)
    watch = Watch(config)
    feed(watch, (0.3, 0.1), (0.1, 0.1), (0.06, 0.15), (0.03, 0.15), (0.0, 0.1))
    with pytest.raises(UserError, match=r"mean of A_t fell from 0\.2 to 0\.0\d"):
        feed(watch, (0.02, 0.1))
    watch = Watch(config)
    feed(watch, (0.2, 0.1), (0.2, 0.1), (0.2, 0.4))
    with pytest.raises(UserError, match=r"classification loss rose from 0\.1 to 0\.4"):
        feed(watch, (0.2, 0.4))
    # Each is held against its own first value.
    feed(Watch(config), (0.2, 5.0), (0.2, 5.0), (0.1, 5.0), (0.1, 5.0))
    feed(Watch(config), (5.0, 0.2), (5.0, 0.2), (5.0, 0.1), (5.0, 0.1))


def test_guard_goes_on_after_a_restart() -> None:
    config = CollapseGuard(map_mean=0.2, window_steps=2)
    first, second = Watch(config), Watch(config)
    feed(first, (0.2, 0.1), (0.2, 0.1), (0.0, 0.1))
    second.load_state_dict(first.state_dict())
    with pytest.raises(UserError, match="step 4 of"):
        feed(second, (0.02, 0.1))


def test_map_statistics_are_those_of_the_target_map(batch) -> None:
    method = build(acr(guard=CollapseGuard(map_mean=0.01)))
    inputs = method.prepare(batch, context())
    with torch.no_grad():
        target_map = method.target_map(inputs, method.classifier(inputs.x)[1])
    logged = take(method, batch, context())
    assert float(logged["cu_map_mean"]) == pytest.approx(float(target_map.mean()), rel=1e-5)
    zero = float((target_map == 0).float().mean())
    assert float(logged["cu_map_zero"]) == pytest.approx(zero, abs=1e-6)
    assert int(method.modules["watch"].steps) == 1
