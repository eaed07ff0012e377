"""PAR against its naive form, and what it is for."""

from __future__ import annotations

import numpy as np
import torch

from wsss.data.par import par


def naive(
    image: np.ndarray, scores: np.ndarray, iterations: int, dilations: tuple[int, ...]
) -> np.ndarray:
    """PAR pixel by pixel in float64."""
    _, height, width = image.shape
    around = [(y, x) for y in (-1, 0, 1) for x in (-1, 0, 1) if (y, x) != (0, 0)]
    offsets = [(y * d, x * d) for d in dilations for y, x in around]
    distance = np.array([np.hypot(y, x) for y, x in offsets])
    near = np.exp(-((distance / (distance.std(ddof=1) + 1e-8) / 0.3) ** 2))
    near /= near.sum()

    def places(row: int, column: int) -> list[tuple[int, int]]:
        return [
            (min(max(row + y, 0), height - 1), min(max(column + x, 0), width - 1))
            for y, x in offsets
        ]

    weights = {}
    for row in range(height):
        for column in range(width):
            colours = np.stack([image[:, r, c] for r, c in places(row, column)])
            spread = colours.std(axis=0, ddof=1) + 1e-8
            term = -((np.abs(colours - image[:, row, column]) / spread / 0.3) ** 2)
            alike = np.exp(term.mean(axis=1) - term.mean(axis=1).max())
            weights[row, column] = alike / alike.sum() + 0.01 * near
    for _ in range(iterations):
        scores = np.stack(
            [
                [
                    sum(
                        w * scores[:, r, c]
                        for w, (r, c) in zip(weights[y, x], places(y, x), strict=True)
                    )
                    for x in range(width)
                ]
                for y in range(height)
            ]
        ).transpose(2, 0, 1)
    return scores


def test_equals_the_naive_form() -> None:
    rng = np.random.default_rng(4)
    image = rng.integers(0, 256, (3, 7, 9)).astype(np.float64)
    scores = rng.random((2, 7, 9))
    # 24 is far beyond the border of so small an image.
    for dilations in ((1, 2), (1, 2, 4, 8, 12, 24)):
        found = par(
            torch.from_numpy(image), torch.from_numpy(scores), iterations=3, dilations=dilations
        )
        wanted = naive(image, scores, 3, dilations)
        assert np.abs(found.numpy() - wanted).max() < 1e-5


def test_what_is_not_said_is_as_published() -> None:
    rng = torch.Generator().manual_seed(1)
    image, scores = (torch.rand(3, 30, 28, generator=rng) for _ in range(2))
    published = {"iterations": 20, "colour_width": 0.3, "position_weight": 0.01}
    expected = par(image, scores, dilations=(1, 2, 4, 8, 12, 24), **published)  # type: ignore[arg-type]
    assert torch.equal(par(image, scores), expected)


def test_the_scale_of_the_image_is_of_no_effect() -> None:
    rng = np.random.default_rng(5)
    image = torch.from_numpy(rng.integers(0, 256, (3, 20, 24)))
    scores = torch.from_numpy(rng.random((3, 20, 24)).astype(np.float32))
    assert torch.allclose(par(image, scores), par(image / 255, scores), atol=1e-4)


def test_a_coarse_map_snaps_to_the_outline_of_what_it_is_of() -> None:
    image = torch.zeros(3, 40, 40)
    image[:, 10:30, 10:30] = 200.0
    # Too large on one side, too small on the other.
    rough = torch.zeros(40, 40)
    rough[6:26, 12:34] = 1.0
    labels = par(image, torch.stack([1 - rough, rough])).argmax(dim=0)
    truth = image[0] > 0
    wrong_before = (rough.bool() != truth).sum()
    assert wrong_before == 264 and (labels.bool() != truth).sum() < wrong_before / 4


def test_one_colour_everywhere_spreads_evenly() -> None:
    scores = torch.rand(2, 30, 30, generator=torch.Generator().manual_seed(0))
    refined = par(torch.full((3, 30, 30), 7.0), scores)
    assert torch.isfinite(refined).all()
    # 20 times 1.01 of all there was, and nothing but the mean is left.
    assert refined.std() < scores.std() / 10
    assert abs(refined.mean() / scores.mean() - 1.01**20) < 0.02
