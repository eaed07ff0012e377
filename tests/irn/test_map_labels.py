"""Pseudo-labels without IRNet: the public code's numbers, and hand-made cases."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from clip_helpers import reference

from wsss.data.crf_config import CrfConfig
from wsss.data.sure_labels import sure_labels
from wsss.irn.map_labels import class_shares, refined_scores, wrapped_bgr
from wsss.maps.background import PowerBackground, background_map, threshold_of

CRF = {
    "crf": CrfConfig(),
    "par_iterations": 20,
    "device": torch.device("cpu"),
}


@pytest.mark.parametrize("name", ["square", "wide"])
def test_equals_the_public_code(name: str) -> None:
    wanted = {k.split("/")[1]: v for k, v in reference().items() if k.startswith(name)}
    maps = wanted["saved_attn_highres"].astype(np.float32)
    for alpha in (1, 2):
        background = background_map(maps, PowerBackground(alpha=alpha))
        assert np.abs(background - wanted[f"bg_alpha{alpha}"].astype(np.float32)).max() < 1e-3
        labels = sure_labels(np.concatenate([background[None], maps]), wanted["keys"], 0.0)
        assert (labels != wanted[f"label_alpha{alpha}"]).mean() < 5e-4
    assert (wrapped_bgr(wanted["image"]) == wanted["crf_image"]).all()
    scores = np.concatenate([wanted["bg_alpha1"].astype(np.float32)[None], maps])
    refined = refined_scores(wanted["crf_image"], scores, refine="crf", **CRF)
    # The public code takes the logarithm of its float16 scores in float16; so it is to the bit.
    assert np.abs(refined - wanted["crf_prob"]).mean() < 1e-4
    mask = sure_labels(refined, wanted["keys"], 0.95)
    assert (mask == wanted["crf_mask"]).mean() > 0.999
    assert (mask == 255).any() and (sure_labels(wanted["crf_prob"], wanted["keys"], 0) < 255).all()


def test_par_shares_sum_to_one_and_the_device_is_used() -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (20, 30, 3), dtype=np.uint8)
    scores = rng.random((3, 20, 30), dtype=np.float32)
    refined = refined_scores(image, scores, refine="par", **CRF)
    assert refined.dtype == np.float32 and np.abs(refined.sum(axis=0) - 1).max() < 1e-5
    nothing = refined_scores(image, np.zeros_like(scores), refine="par", **CRF)
    assert not nothing.any()


def test_background() -> None:
    maps = np.array([[[0.2, 0.7]], [[0.5, 0.1]]], dtype=np.float32)
    assert background_map(maps, PowerBackground(alpha=2))[0].tolist() == pytest.approx([0.25, 0.09])
    assert background_map(maps, 0.3)[0].tolist() == pytest.approx([0.3, 0.3])
    # No class at all: background everywhere.
    assert background_map(np.zeros((0, 2, 2), np.float32), PowerBackground(alpha=3)).tolist() == [
        [1, 1],
        [1, 1],
    ]
    # A rounding error above 1 has no power of 0.5.
    assert (
        background_map(np.full((1, 1, 1), 1.0000001, np.float32), PowerBackground(alpha=0.5))[0, 0]
        == 0
    )


def test_ties_go_to_background_and_unsure_pixels_to_255() -> None:
    scores = np.array([[[0.5, 0.2, 0.96]], [[0.5, 0.8, 0.04]]], dtype=np.float32)
    assert sure_labels(scores, np.array([4]), 0.0).tolist() == [[0, 5, 0]]
    assert sure_labels(scores, np.array([4]), 0.95).tolist() == [[255, 255, 0]]


@pytest.mark.parametrize("alpha", [0.5, 1, 2, 7])
def test_a_power_of_the_rest_is_a_constant_in_other_units(alpha: float) -> None:
    rng = np.random.default_rng(1)
    maps = rng.random((2, 100, 100), dtype=np.float32)
    by_power = np.concatenate([background_map(maps, PowerBackground(alpha=alpha))[None], maps])
    constant = background_map(maps, threshold_of(PowerBackground(alpha=alpha)))
    by_constant = np.concatenate([constant[None], maps])
    labels = [sure_labels(scores, np.array([0, 1]), 0.0) for scores in (by_power, by_constant)]
    assert (labels[0] == labels[1]).all() and len(np.unique(labels[0])) == 3


def test_shares_label_as_the_scores_do() -> None:
    scores = np.random.default_rng(2).random((3, 50, 50), dtype=np.float32)
    scores[:, 0, 0] = 0
    shares = class_shares(scores)
    even = np.full((1, 50, 50), 0.5, np.float32)
    classes = np.array([0, 1])
    wanted = sure_labels(scores, classes, 0.0)
    assert (sure_labels(np.concatenate([even, shares]), classes, 0.0) == wanted).all()
    assert shares[:, 0, 0].tolist() == [0, 0] and len(np.unique(wanted)) == 3


def test_thresholds_of_powers() -> None:
    assert threshold_of(PowerBackground()) == 0.5 and threshold_of(0.3) == 0.3
    assert threshold_of(PowerBackground(alpha=2.0)) == pytest.approx((3 - 5**0.5) / 2, abs=1e-12)
