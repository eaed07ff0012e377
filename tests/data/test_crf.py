"""The dense CRF against a brute-force mean field over all pixel pairs."""

from __future__ import annotations

import numpy as np
import pytest

from wsss.data.crf import crf_from_label_maps, crf_from_probabilities
from wsss.data.crf_config import CrfConfig, LabelCrfConfig
from wsss.errors import UserError

SMOOTH = {
    "gaussian_sxy": 3.0,
    "gaussian_compat": 3.0,
    "bilateral_sxy": 50.0,
    "bilateral_srgb": 5.0,
    "bilateral_compat": 10.0,
    "iterations": 10,
}
KERNELS = CrfConfig(**SMOOTH)


def picture(height: int = 16, width: int = 20) -> np.ndarray:
    image = np.full((height, width, 3), (40, 90, 160), dtype=np.uint8)
    image[:, width // 2 :] = (200, 60, 30)
    noise = np.random.default_rng(0).integers(-2, 3, image.shape)
    return (image.astype(int) + noise).astype(np.uint8)


def refined(image: np.ndarray, labels: np.ndarray, n_labels: int) -> np.ndarray:
    """Refine one label map alone."""
    (found,) = crf_from_label_maps(image, [labels], n_labels, LabelCrfConfig(gt_prob=0.7, **SMOOTH))
    return found


def brute_force(image: np.ndarray, energy: np.ndarray, settings: dict[str, float]) -> np.ndarray:
    """Mean field in float64 with exact kernels and symmetric normalisation.

    The library's permutohedral lattice includes a pixel's message to itself, so it is kept.
    """
    k, h, w = energy.shape
    ys, xs = np.mgrid[:h, :w]
    position = np.stack([ys.ravel(), xs.ravel()], 1).astype(np.float64)
    colour = image.reshape(-1, 3).astype(np.float64)

    def kernel(features: np.ndarray) -> np.ndarray:
        distance = ((features[:, None] - features[None]) ** 2).sum(-1)
        matrix = np.exp(-distance / 2)
        norm = 1 / np.sqrt(matrix.sum(1))
        return norm[:, None] * matrix * norm[None]

    total = settings["gaussian_compat"] * kernel(position / settings["gaussian_sxy"])
    total += settings["bilateral_compat"] * kernel(
        np.concatenate(
            [position / settings["bilateral_sxy"], colour / settings["bilateral_srgb"]], 1
        )
    )
    unary = energy.reshape(k, -1).astype(np.float64)

    def softmax(logits: np.ndarray) -> np.ndarray:
        e = np.exp(logits - logits.max(0))
        return e / e.sum(0)

    q = softmax(-unary)
    for _ in range(int(settings["iterations"])):
        q = softmax(-unary + q @ total)
    return q.reshape(k, h, w)


def test_probabilities_follow_the_exact_mean_field() -> None:
    image = picture()
    rng = np.random.default_rng(1)
    logits = rng.normal(0, 1, (3, 16, 20))
    logits[0, :, :10] += 0.7
    logits[1, :, 10:] += 0.7
    probs = np.exp(logits) / np.exp(logits).sum(0)
    found = crf_from_probabilities(image, probs.astype(np.float32), KERNELS)
    expected = brute_force(image, -np.log(probs), SMOOTH)
    assert found.dtype == np.float32
    assert np.allclose(found.sum(0), 1, atol=1e-4)
    # The lattice only approximates the kernels: the decision must agree, not every digit.
    assert (found.argmax(0) == expected.argmax(0)).mean() > 0.97
    assert np.abs(found - expected).mean() < 0.05


def test_labels_snap_to_the_colour_edge() -> None:
    image = picture(24, 32)
    labels = np.zeros((24, 32), dtype=np.int64)
    labels[:, 18:] = 1  # two pixels beside the true edge at 16
    labels[3, 4] = 1
    found = refined(image, labels, 2)
    expected = np.zeros_like(labels)
    expected[:, 16:] = 1
    assert np.array_equal(found, expected)


def test_label_unary_equals_probabilities_of_the_same_values() -> None:
    image = picture()
    labels = np.random.default_rng(2).integers(0, 3, (16, 20))
    probs = np.full((3, 16, 20), 0.15, dtype=np.float32)
    for k in range(3):
        probs[k][labels == k] = 0.7
    found = refined(image, labels, 3)
    assert np.array_equal(found, crf_from_probabilities(image, probs, KERNELS).argmax(0))


def test_one_label_stays() -> None:
    found = refined(picture(), np.zeros((16, 20), int), 1)
    assert not found.any()


@pytest.mark.parametrize(
    ("labels", "n_labels"), [(np.zeros((5, 5), int), 2), (np.full((16, 20), 2), 2)]
)
def test_impossible_labels_are_named(labels: np.ndarray, n_labels: int) -> None:
    with pytest.raises(UserError, match=r"label"):
        refined(picture(), labels, n_labels)


def test_a_grey_image_is_refused() -> None:
    with pytest.raises(UserError, match="uint8"):
        crf_from_probabilities(
            np.zeros((4, 4), np.uint8), np.ones((2, 4, 4), np.float32), CrfConfig(**SMOOTH)
        )


def test_maps_refined_together_are_those_refined_alone() -> None:
    image = picture(40, 50)
    rng = np.random.default_rng(1)
    maps = [rng.integers(0, 3, image.shape[:2]) for _ in range(2)]
    maps.append(np.where(image[..., 0] > 100, 2, 0))
    together = crf_from_label_maps(image, maps, 3, LabelCrfConfig(gt_prob=0.7, **SMOOTH))
    for found, alone in zip(together, maps, strict=True):
        assert np.array_equal(found, refined(image, alone, 3))
    assert not np.array_equal(together[0], together[2])
