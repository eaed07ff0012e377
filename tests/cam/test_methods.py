"""The CAM methods that train, each as `BaseMethodTester` asks for it."""

from __future__ import annotations

from cam_settings import as_method
from distributed_cases import CAM
from method_tester import BaseMethodTester


class TestCam(BaseMethodTester):
    settings = as_method(CAM, "cam")


class TestAcr(BaseMethodTester):
    settings = as_method(CAM, "acr")
    falls = "cu_classification"


class TestMct(BaseMethodTester):
    settings = as_method(CAM, "mct", crop_px=32)


class TestAcrVit(BaseMethodTester):
    settings = as_method(CAM, "acr-vit", crop_px=32)
    falls = "cu_classification"
