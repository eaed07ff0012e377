"""The random walk against a dense float64 walk and against the published implementation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from naive_walk import dense_walk

from wsss.errors import UserError
from wsss.irn.random_walk import power_coefficients, random_walk, random_walk_batch

REFERENCE = Path(__file__).parents[1] / "reference" / "random_walk.npz"
CASES = ((0, 6), (0, 8), (1, 6), (1, 8), (2, 6), (2, 8))


def maps(height: int, width: int, classes: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    cam = torch.rand(classes, height, width, generator=generator)
    edge = torch.rand(height, width, generator=generator) ** 3
    edge[height // 2] = 0.97  # a wall across the map
    return cam, edge


@pytest.mark.parametrize(("case", "log_steps"), CASES)
def test_agrees_with_the_published_walk(case: int, log_steps: int) -> None:
    with np.load(REFERENCE) as data:
        cam = torch.from_numpy(data[f"case{case}_cam"])
        edge = torch.from_numpy(data[f"case{case}_edge"])
        expected = data[f"case{case}_beta10_t{log_steps}"]
    found = random_walk(cam, edge, steps=2**log_steps).numpy()
    # The reference is itself 6e-5 of its maximum off a float64 walk.
    assert np.abs(found - expected).max() < 7e-5 * expected.max()


@pytest.mark.parametrize("shape", [(21, 17), (9, 24), (4, 3), (1, 12), (1, 1)])
def test_agrees_with_a_dense_float64_walk(shape: tuple[int, int]) -> None:
    cam, edge = maps(*shape, classes=2, seed=3)
    found = random_walk(cam, edge).numpy()
    expected = dense_walk(cam.numpy(), edge.numpy())
    assert found.dtype == np.float32
    assert np.abs(found - expected).max() < 1e-5 * expected.max()


@pytest.mark.parametrize(("radius", "beta", "steps"), [(3, 4.0, 64), (6, 1.0, 7), (2, 10.0, 1)])
def test_other_settings_agree_too(radius: int, beta: float, steps: int) -> None:
    cam, edge = maps(12, 15, classes=1, seed=5)
    found = random_walk(cam, edge, radius=radius, beta=beta, steps=steps).numpy()
    expected = dense_walk(cam.numpy(), edge.numpy(), radius=radius, beta=beta, steps=steps)
    assert np.abs(found - expected).max() < 1e-5 * expected.max()


def test_a_batch_of_unequal_images_gives_what_each_gives_alone() -> None:
    pairs = [maps(14, 9, 3, 1), maps(8, 20, 1, 2), maps(11, 11, 2, 3)]
    together = random_walk_batch([cam for cam, _ in pairs], [edge for _, edge in pairs])
    for (cam, edge), found in zip(pairs, together, strict=True):
        alone = random_walk(cam, edge)
        assert found.shape == cam.shape
        torch.testing.assert_close(found, alone, rtol=0, atol=2e-6 * float(alone.max()))


def test_inputs_are_left_alone() -> None:
    cam, edge = maps(8, 8, 1, 0)
    before = cam.clone(), edge.clone()
    random_walk(cam, edge)
    assert torch.equal(cam, before[0]) and torch.equal(edge, before[1])


@pytest.mark.parametrize("steps", [1, 2, 7, 64, 256, 1000])
def test_chebyshev_coefficients_give_the_power(steps: int) -> None:
    x = np.linspace(-1, 1, 501)
    value = np.polynomial.chebyshev.chebval(x, power_coefficients(steps))
    assert np.abs(value - x**steps).max() < 2e-6


def test_256_steps_need_few_products() -> None:
    assert len(power_coefficients(256)) < 90


def test_impossible_inputs_are_named() -> None:
    with pytest.raises(UserError, match="shape"):
        random_walk(torch.ones(2, 4, 4), torch.ones(4, 5))
    with pytest.raises(UserError, match="steps"):
        power_coefficients(0)
