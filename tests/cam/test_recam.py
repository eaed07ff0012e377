"""ReCAM: its second classifier against loops over images and classes, its phases, its export."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from cam_settings import as_method
from distributed_cases import CAM, CLASSES, CPU, Pictures
from method_tester import BaseMethodTester
from torch.utils.data import default_collate

from wsss.cam.export import cam_source
from wsss.cam.methods.recam import ReCamClassifier, class_features, softmax_loss
from wsss.cam.methods.recam_config import ReactivationConfig
from wsss.cam.model_file import build_classifier, cam_task
from wsss.data.loader import random_generator
from wsss.data.transforms import normalise
from wsss.errors import UserError
from wsss.models.classifier import Classifier
from wsss.project.config import resolve
from wsss.training.descent import take_step
from wsss.training.distributed import Split
from wsss.training.schedule import apply_factor, poly
from wsss.training.step import Part, Plan

PHASES = ReactivationConfig(classifier_epochs=1, joint_lr_factor=0.5, weight=0.7)
SETTINGS = as_method(CAM, "recam", epochs=2, recam=PHASES)


class TestReCam(BaseMethodTester):
    settings = SETTINGS
    falls = "softmax"


def pictures(count: int = 8):
    shown = Pictures(SETTINGS.crop_px, count)
    return default_collate([shown.load(i, random_generator(i)) for i in range(count)])


def naive_softmax_loss(cam, features, label, second) -> float:
    """The published definition in NumPy's float64: one image, one of its classes after another."""
    of_images = []
    for maps, feature, tags in zip(cam, features, label, strict=True):
        of_classes = []
        for k in np.flatnonzero(tags):
            mask = np.maximum(maps[k], 0)
            mask = mask / (mask.max() + 1e-5)
            pooled = np.array([(mask * channel).mean() for channel in feature])
            logits = second @ pooled
            of_classes.append(math.log(np.exp(logits).sum()) - logits[k])
        of_images.append(np.mean(of_classes))
    return float(np.mean(of_images))


def test_the_second_loss_is_the_published_definition() -> None:
    generator = torch.Generator().manual_seed(0)
    cam = torch.randn(3, 4, 5, 6, generator=generator) * 3
    cam[1, 2] = -1.0  # a class that nothing speaks for
    features = torch.randn(3, 7, 5, 6, generator=generator).relu()
    second = torch.randn(4, 7, generator=generator)
    label = torch.tensor([[1, 0, 0, 0], [0, 1, 1, 0], [1, 1, 0, 1]]).float()
    found = softmax_loss(class_features(cam, features) @ second.T, label)
    parts = (value.double().numpy() for value in (cam, features, label, second))
    assert float(found) == pytest.approx(naive_softmax_loss(*parts), rel=1e-5)


@pytest.mark.setting("cam.recam.weight")
def test_a_step_has_both_losses_and_moves_the_maps() -> None:
    torch.manual_seed(1)
    task, batch = cam_task(SETTINGS, CLASSES, device=CPU), pictures()
    network = task.classifier
    x = normalise(batch["image"], network.normalisation, batch["valid"])
    with torch.no_grad():
        features = network.features(x)
        logits, cam = network(x)
    arrays = (
        value.double().numpy()
        for value in (cam, features, batch["label"], network.second.weight.detach())
    )
    softmax = naive_softmax_loss(*arrays)
    y, z = batch["label"].double(), logits.double()
    bce = float(-(y * z.sigmoid().log() + (1 - y) * (-z).sigmoid().log()).mean())
    terms = task._joint(Part(batch), None)
    assert float(terms["softmax"].detach()) == pytest.approx(softmax, rel=1e-4)
    assert float(terms["classification"].detach()) == pytest.approx(bce, rel=1e-4)
    assert float(terms["total"].detach()) == pytest.approx(bce + 0.7 * softmax, rel=1e-4)
    # The softmax loss alone reaches the first classifier, through the maps that it makes.
    terms["softmax"].backward()
    assert float(network.head.classes.weight.grad.abs().sum()) > 0
    assert float(network.second.weight.grad.abs().sum()) > 0


@pytest.mark.setting("cam.recam.classifier_epochs", "cam.recam.joint_lr_factor")
def test_the_first_epochs_are_the_plain_classifiers() -> None:
    batch, states = pictures(), {}
    for name, settings in {"cam": as_method(CAM, "cam", epochs=1), "recam": SETTINGS}.items():
        torch.manual_seed(1)
        task = cam_task(settings, CLASSES, device=CPU)
        schedule = task.schedules.get("classifier", poly)
        plan = Plan("test", settings.epochs, 8, 5, 0, 0, 1, {"classifier": poly}, Split())
        for step in range(5):
            apply_factor(task.optimizers.values(), schedule(step, plan.total))
            logged = take_step(task, batch, plan.context(step, CPU))
        assert "softmax" not in logged
        states[name] = task.classifier.state_dict()
    second = states["recam"].pop("second.weight").clone()
    assert states["cam"].keys() == states["recam"].keys()
    assert all(torch.equal(value, states["recam"][key]) for key, value in states["cam"].items())
    # The next step has both, at half of the rate that the schedule begins anew with.
    apply_factor(task.optimizers.values(), schedule(5, plan.total))
    assert task.optimizers["classifier"].param_groups[0]["lr"] == pytest.approx(0.5 * 0.02)
    assert "softmax" in take_step(task, batch, plan.context(5, CPU))
    assert not torch.equal(task.classifier.second.weight, second)


def test_exported_maps_have_the_product_of_both_weights() -> None:
    torch.manual_seed(1)
    network: Classifier = build_classifier(SETTINGS, CLASSES).eval()
    assert isinstance(network, ReCamClassifier)
    x = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        features = network.features(x)
        found = network.inference_cam(x).cam
        weights = (network.class_weights * network.second.weight).double()
        wanted = torch.einsum("cd,bdhw->bchw", weights, features.double())
        torch.testing.assert_close(found.double(), wanted, rtol=1e-4, atol=1e-6)
        before = network(x)[1]
        assert not torch.allclose(before, found)  # what it trains by stays the first one's
        # In the form that exports: lean.
        source = cam_source("float32", network, None, CPU, mirror=False)
        lean = source.classifier.inference_cam(x).cam
    torch.testing.assert_close(lean, found, rtol=1e-3, atol=1e-4)
    assert not source.classifier.gives_features


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(UserError, match=r"fewer than cam\.epochs"):
        as_method(CAM, "recam", epochs=2, recam=ReactivationConfig(classifier_epochs=2))
    run = {"root": "own", "index": {"format": "folder"}, "cam": {"method": "recam"}}
    resolve({"roots": {"own": "x"}, "runs": {"a": run}})
    with pytest.raises(UserError, match="'recam', has no features"):
        resolve({"roots": {"own": "x"}, "runs": {"a": {**run, "export": {"refine": "lpcam"}}}})
