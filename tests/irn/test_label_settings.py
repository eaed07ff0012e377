"""Settings of confident labels at other values than the defaults, against a CRF by hand."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from pydensecrf import densecrf

from wsss.data.crf_config import LabelCrfConfig
from wsss.irn.config import LabelsConfig
from wsss.irn.labels import confident_labels

# As in IRN's public code.
DEFAULT: dict[str, Any] = {
    "foreground_threshold": 0.3, "background_threshold": 0.05, "gt_prob": 0.7,
    "gaussian_sxy": 3.0, "gaussian_compat": 3.0, "bilateral_sxy": 50.0, "bilateral_srgb": 5.0,
    "bilateral_compat": 10.0, "iterations": 10,
}  # fmt: skip
THRESHOLDS = {key: DEFAULT[key] for key in ("foreground_threshold", "background_threshold")}


def picture() -> tuple[np.ndarray, np.ndarray]:
    """Two colours that run into each other, and two maps with as many steps."""
    rng = np.random.default_rng(3)
    slope = np.linspace(0, 1, 24)[None, :, None] * np.ones((20, 1, 1))
    image = 60 + 90 * slope + rng.normal(0, 12, (20, 24, 3))
    first = np.clip(slope[..., 0] + rng.normal(0, 0.25, (20, 24)), 0, 1)
    second = np.clip(0.5 - slope[..., 0] + rng.normal(0, 0.2, (20, 24)), 0, 1)
    maps = np.stack([first, second]) ** 2
    return image.clip(0, 255).astype(np.uint8), maps.astype(np.float32)


def by_hand(image: np.ndarray, maps: np.ndarray, indices: list[int], s: dict[str, Any]) -> Any:
    """The definition, with the library for dense CRFs called for each map of labels."""
    count = len(maps) + 1
    refined = []
    for score in (s["foreground_threshold"], s["background_threshold"]):
        seeds = np.zeros(image.shape[:2], int)
        for y, x in np.ndindex(seeds.shape):
            best = int(maps[:, y, x].argmax())
            seeds[y, x] = best + 1 if maps[best, y, x] > np.float32(score) else 0
        share = np.full((count, seeds.size), (1 - s["gt_prob"]) / (count - 1), np.float32)
        share[seeds.ravel(), np.arange(seeds.size)] = s["gt_prob"]
        crf = densecrf.DenseCRF2D(image.shape[1], image.shape[0], count)
        crf.setUnaryEnergy(np.ascontiguousarray(-np.log(share)))
        crf.addPairwiseGaussian(sxy=s["gaussian_sxy"], compat=s["gaussian_compat"])
        crf.addPairwiseBilateral(
            sxy=s["bilateral_sxy"],
            srgb=s["bilateral_srgb"],
            rgbim=image,
            compat=s["bilateral_compat"],
        )
        marginals = np.array(crf.inference(s["iterations"]))
        refined.append(marginals.argmax(axis=0).reshape(seeds.shape))
    labels = np.full(image.shape[:2], 255)
    for k, index in enumerate(indices):
        labels[refined[0] == k + 1] = index + 1
    labels[(refined[0] == 0) & (refined[1] == 0)] = 0
    return labels


@pytest.mark.parametrize(
    ("key", "value"),
    [
        pytest.param(
            "foreground_threshold", 0.6, marks=pytest.mark.setting("labels.foreground_threshold")
        ),
        pytest.param(
            "background_threshold", 0.2, marks=pytest.mark.setting("labels.background_threshold")
        ),
        pytest.param("gt_prob", 0.95, marks=pytest.mark.setting("labels.crf.gt_prob")),
        pytest.param("gaussian_sxy", 0.7, marks=pytest.mark.setting("labels.crf.gaussian_sxy")),
        pytest.param(
            "gaussian_compat", 0.5, marks=pytest.mark.setting("labels.crf.gaussian_compat")
        ),
        pytest.param("bilateral_sxy", 4.0, marks=pytest.mark.setting("labels.crf.bilateral_sxy")),
        pytest.param(
            "bilateral_srgb", 60.0, marks=pytest.mark.setting("labels.crf.bilateral_srgb")
        ),
        pytest.param(
            "bilateral_compat", 1.0, marks=pytest.mark.setting("labels.crf.bilateral_compat")
        ),
        pytest.param("iterations", 1, marks=pytest.mark.setting("labels.crf.iterations")),
    ],
)
def test_labels_are_those_of_the_crf_by_hand(key: str, value: float) -> None:
    image, maps = picture()
    own = {key: value}
    crf = LabelCrfConfig(**{} if "threshold" in key else own)
    config = LabelsConfig(**THRESHOLDS | (own if "threshold" in key else {}), crf=crf)
    found = confident_labels(image, maps, np.array([0, 4]), config)
    assert np.array_equal(found, by_hand(image, maps, [0, 4], {**DEFAULT, key: value}))
    # The value matters here.
    assert not np.array_equal(found, by_hand(image, maps, [0, 4], DEFAULT))


def test_the_crf_is_that_of_the_public_code() -> None:
    image, maps = picture()
    found = confident_labels(image, maps, np.array([0, 4]), LabelsConfig(**THRESHOLDS))
    assert np.array_equal(found, by_hand(image, maps, [0, 4], DEFAULT))
    assert set(np.unique(found)) >= {0, 1}


def test_the_ways_to_make_labels_are_known_without_torch() -> None:
    code = (
        "import sys; from wsss.irn.label_methods import LABEL_METHODS;"
        "print(*LABEL_METHODS.entries(), 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["crf", "irn", "False"]
