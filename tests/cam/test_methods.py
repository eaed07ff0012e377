"""The CAM methods that train, each as `BaseMethodTester` asks for it."""

from __future__ import annotations

from cam_settings import as_method
from distributed_cases import CAM
from method_tester import BaseMethodTester

from wsss.cam.methods.adversary_settings import AcrSchedule, CollapseGuard
from wsss.cam.methods.oc_cse_config import ErasingConfig
from wsss.cam.methods.registry import METHODS
from wsss.runtime.settings import replace


class TestCam(BaseMethodTester):
    settings = as_method(CAM, "cam")


class TestAcr(BaseMethodTester):
    settings = as_method(CAM, "acr")
    falls = "cu_classification"


class TestOcCse(BaseMethodTester):
    settings = as_method(CAM, "oc-cse", occse=ErasingConfig(classifier_epochs=1), epochs=2)
    falls = "classification"


class TestAcrInPhases(BaseMethodTester):
    settings = as_method(
        CAM,
        "acr",
        acr=replace(
            CAM.acr,
            schedule=AcrSchedule(classifier_epochs=1, joint_lr_factor=0.5, ramp_epochs=0.5),
            anchor=0.5,
            guard=CollapseGuard(map_mean=0.001, window_steps=1),
        ),
        epochs=2,
    )
    falls = "cu_classification"


class TestAveragedCam(BaseMethodTester):
    settings = as_method(CAM, "cam", ema=0.9, label_smoothing=0.1)


class TestMct(BaseMethodTester):
    settings = as_method(CAM, "mct", crop_px=32)


class TestAcrVit(BaseMethodTester):
    settings = as_method(CAM, "acr-vit", crop_px=32)
    falls = "cu_classification"


def test_what_each_method_gives() -> None:
    """Lenders of attention, features and reconstructors are these, and no others."""
    given = {
        name: {
            what
            for what in ("features", "attention", "reconstructor")
            if getattr(METHODS.get(name, where="cam.method"), f"has_{what}")
        }
        for name in METHODS.entries()
    }
    assert given == {
        "acr": {"features", "reconstructor"},
        "acr-vit": {"attention", "reconstructor"},
        "cam": {"features"},
        "clip-es": set(),
        "imported": set(),
        "mct": {"attention"},
        "oc-cse": {"features"},
        "recam": set(),
    }
