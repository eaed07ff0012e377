"""A dense CRF that notes what it is given, and refines nothing."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import pytest

CRF = {
    "gaussian_sxy": 2.5,
    "gaussian_compat": 1.5,
    "bilateral_sxy": 33.0,
    "bilateral_srgb": 7.0,
    "bilateral_compat": 6.0,
    "iterations": 3,
}
"""Each at another value than any default."""


class Recorder:
    """In the place of `pydensecrf.densecrf.DenseCRF2D`."""

    seen: ClassVar[list[dict[str, Any]]] = []

    def __init__(self, width: int, height: int, n_labels: int) -> None:
        self._given: dict[str, Any] = {}

    def addPairwiseGaussian(self, sxy: float, compat: float) -> None:
        self._given |= {"gaussian_sxy": sxy, "gaussian_compat": compat}

    def addPairwiseBilateral(
        self, sxy: float, srgb: float, rgbim: np.ndarray, compat: float
    ) -> None:
        found = {"bilateral_sxy": sxy, "bilateral_srgb": srgb, "bilateral_compat": compat}
        self._given |= {**found, "image": rgbim}

    def setUnaryEnergy(self, energy: np.ndarray) -> None:
        self._energy = energy

    def inference(self, iterations: int) -> np.ndarray:
        self.seen.append({**self._given, "iterations": iterations})
        weights = np.exp(-self._energy)
        return weights / weights.sum(axis=0)


def recorded_crf(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Return what each use of the dense CRF will be given, by the settings' names, and `image`."""
    from pydensecrf import densecrf

    monkeypatch.setattr(Recorder, "seen", [])
    monkeypatch.setattr(densecrf, "DenseCRF2D", Recorder)
    return Recorder.seen


def settings_of(call: dict[str, Any]) -> dict[str, Any]:
    """Return what a call was given, but for the image."""
    return {key: value for key, value in call.items() if key != "image"}
