from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from wsss.cam import losses
from wsss.cam.methods.acr_config import AcrWeights
from wsss.errors import UserError

WEIGHTS = AcrWeights(
    ru_class=1.0,
    ru_full=0.2,
    ru_target=0.5,
    ru_nontarget=0.3,
    cu_class=1.1,
    cu_target=0.8,
    cu_nontarget=0.3,
)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(3)


def tensor(array: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array))


def test_normalised_cam_against_a_loop(rng):
    cam = rng.standard_normal((2, 3, 5, 4))
    cam[1, 2] = -1.0  # nothing above zero: an empty map
    ours = losses.normalise_cam(tensor(cam)).numpy()
    for b in range(2):
        for c in range(3):
            a = [max(value, 0.0) for value in cam[b, c].ravel()]
            low, high = min(a), max(a)
            naive = [max(value - low - 1e-5, 0) / (high - low + 1e-5) for value in a]
            np.testing.assert_allclose(ours[b, c].ravel(), naive, rtol=1e-12)
    assert ours[1, 2].max() == 0


def test_normalisation_passes_gradient_through_min_and_max():
    cam = (torch.rand(1, 1, 3, 3, dtype=torch.float64) + 0.5).requires_grad_()
    assert torch.autograd.gradcheck(losses.normalise_cam, cam)


def test_every_labelled_class_is_drawn_equally_often_and_no_other():
    label = torch.tensor([[0.0, 1, 0, 1, 1, 0]]).repeat(3000, 1)
    uniform = torch.rand(3000, generator=torch.Generator().manual_seed(0))
    drawn = torch.bincount(losses.draw_targets(label, uniform), minlength=6)
    assert drawn[[0, 2, 5]].sum() == 0
    assert (drawn[[1, 3, 4]] - 1000).abs().max() < 5 * math.sqrt(3000 * 2 / 9)
    edges = torch.tensor([0.0, 0.34, 0.999999999])
    assert losses.draw_targets(label[:3], edges).tolist() == [1, 3, 4]


def test_an_image_without_labels_cannot_be_drawn_from():
    with pytest.raises(UserError):
        losses.draw_targets(torch.tensor([[0.0, 1], [0, 0]]), torch.zeros(2))


@pytest.mark.parametrize("q", [0.0, 0.3, 1.0])
def test_grid_cells_are_one_with_probability_q(q):
    grid = losses.remnant_grid(50, 20, q, torch.Generator().manual_seed(1))
    assert grid.shape == (50, 1, 20, 20)
    assert set(grid.unique().tolist()) <= {0.0, 1.0}
    assert abs(float(grid.mean()) - q) <= 5 * math.sqrt(q * (1 - q) / grid.numel())


def test_grid_is_resized_nearest():
    grid = torch.tensor([[[[1.0, 0], [0, 1]]]])
    ours = losses.resize_grid(grid, 6)
    assert torch.equal(ours, grid.repeat_interleave(3, 2).repeat_interleave(3, 3))


def naive_terms(inputs: dict[str, np.ndarray], *, with_grid: bool) -> dict[str, float]:
    """The six masked and unmasked terms, pixel by pixel, from the paper's formulas."""
    image, target_map, grid = inputs["image"], inputs["map"], inputs["grid"]
    count, channels, height, width = image.shape
    sums = dict.fromkeys(("full", "ru_target", "cu_target", "cu_nontarget"), 0.0)
    nontarget_sums = []
    for b in range(count):
        nontarget_sum, mass = 0.0, 0.0
        for y in range(height):
            for x in range(width):
                a = target_map[b, 0, y, x]
                g = grid[b, 0, y, x] if with_grid else 0.0
                mass += (1 - a) + a * g
                for c in range(channels):

                    def gap(key: str) -> float:
                        return abs(inputs[key][b, c, y, x] - image[b, c, y, x])  # noqa: B023

                    sums["full"] += gap("full")
                    sums["ru_target"] += (1 - a) * (1 - g) * gap("target")
                    nontarget_sum += a * (1 - g) * gap("nontarget")
                    sums["cu_target"] += gap("target") if a == 0 else 0.0
                    if inputs["predicted"][b, 0, y, x]:
                        sums["cu_nontarget"] += a * gap("nontarget")
        if mass > 50:
            nontarget_sums.append(nontarget_sum / (channels * height * width))
    terms = {key: value / image.size for key, value in sums.items()}
    terms["ru_nontarget"] = sum(nontarget_sums) / max(1, len(nontarget_sums))
    return terms


@pytest.fixture
def loss_inputs(rng) -> dict[str, np.ndarray]:
    size = (3, 3, 8, 9)
    target_map = np.clip(rng.uniform(-0.4, 1, (3, 1, 8, 9)), 0, 1)
    target_map[1] = 0.95  # its non-target segment is below 50 pixels
    grid = (rng.random((3, 1, 8, 9)) < 0.5).astype(float)
    grid[1] = 0
    grid[2] = 1
    return {
        "image": rng.standard_normal(size),
        "full": rng.standard_normal(size),
        "target": rng.standard_normal(size),
        "nontarget": rng.standard_normal(size),
        "map": target_map,
        "grid": grid,
        "predicted": rng.random((3, 1, 8, 9)) < 0.5,
        "logits": rng.standard_normal((3, 4)),
        "label": (rng.random((3, 4)) < 0.5).astype(float),
    }


def naive_bce(inputs: dict[str, np.ndarray]) -> float:
    total = 0.0
    for z, y in zip(inputs["logits"].ravel(), inputs["label"].ravel(), strict=True):
        p = 1 / (1 + math.exp(-z))
        total -= y * math.log(p) + (1 - y) * math.log(1 - p)
    return total / inputs["label"].size


@pytest.mark.parametrize("with_grid", [True, False])
def test_ru_loss_against_a_loop(loss_inputs, with_grid):
    t = {key: tensor(value) for key, value in loss_inputs.items()}
    ours = losses.ru_loss(
        t["logits"], t["label"], t["image"], (t["full"], t["target"], t["nontarget"]),
        t["map"], t["grid"] if with_grid else None, WEIGHTS,
    )  # fmt: skip
    naive = naive_terms(loss_inputs, with_grid=with_grid)
    assert float(ours.classification) == pytest.approx(naive_bce(loss_inputs), rel=1e-12)
    assert float(ours.full) == pytest.approx(naive["full"], rel=1e-12)
    assert float(ours.target) == pytest.approx(naive["ru_target"], rel=1e-12)
    assert float(ours.nontarget) == pytest.approx(naive["ru_nontarget"], rel=1e-12)
    total = (
        naive_bce(loss_inputs) + 0.2 * naive["full"] + 0.5 * naive["ru_target"]
        + 0.3 * naive["ru_nontarget"]
    )  # fmt: skip
    assert float(ours.total) == pytest.approx(total, rel=1e-12)


def test_an_image_left_out_of_the_nontarget_term_has_no_part_in_it(loss_inputs):
    t = {key: tensor(value) for key, value in loss_inputs.items()}
    t["map"] = torch.full_like(t["map"], 0.95)
    from_nontarget = t["nontarget"].clone().requires_grad_()
    ours = losses.ru_loss(
        t["logits"], t["label"], t["image"], (t["full"], t["target"], from_nontarget),
        t["map"], None, WEIGHTS,
    )  # fmt: skip
    assert float(ours.nontarget.detach()) == 0
    ours.total.backward()
    assert float(from_nontarget.grad.abs().max()) == 0


def test_a_single_image_with_a_nontarget_term_is_its_mean(loss_inputs):
    t = {key: tensor(value) for key, value in loss_inputs.items()}
    t["map"] = torch.full_like(t["map"], 0.95)
    t["map"][1] = 0.25
    ours = losses.ru_loss(
        t["logits"], t["label"], t["image"], (t["full"], t["target"], t["nontarget"]),
        t["map"], None, WEIGHTS,
    )  # fmt: skip
    assert losses.is_kept(t["map"], None).tolist() == [i == 1 for i in range(len(t["map"]))]
    alone = (0.25 * (t["nontarget"] - t["image"]).abs())[1].mean()
    assert float(ours.nontarget) == pytest.approx(float(alone), rel=1e-12)


def test_cu_loss_against_a_loop(loss_inputs):
    t = {key: tensor(value) for key, value in loss_inputs.items()}
    ours = losses.cu_loss(
        t["logits"], t["label"], t["image"], (t["target"], t["nontarget"]), t["map"],
        t["predicted"], WEIGHTS,
    )  # fmt: skip
    naive = naive_terms(loss_inputs, with_grid=False)
    assert naive["cu_target"] > 0
    assert float(ours.target) == pytest.approx(naive["cu_target"], rel=1e-12)
    assert float(ours.nontarget) == pytest.approx(naive["cu_nontarget"], rel=1e-12)
    total = 1.1 * naive_bce(loss_inputs) - 0.8 * naive["cu_target"] - 0.3 * naive["cu_nontarget"]
    assert float(ours.total) == pytest.approx(total, rel=1e-12)


def test_the_argmax_runs_over_all_classes_of_the_resized_raw_logits(rng):
    cam = tensor(rng.standard_normal((2, 5, 4, 4)))
    target = torch.tensor([3, 0])
    resized = F.interpolate(cam, size=(16, 16), mode="bilinear", align_corners=False)
    ours = losses.is_predicted(cam, target, 16)
    for b in range(2):
        for y in range(16):
            for x in range(16):
                winner = int(np.argmax(resized[b, :, y, x].numpy()))
                assert bool(ours[b, 0, y, x]) == (winner == target[b])


@pytest.mark.parametrize("size", [(64, 48), (20, 7), (3, 5), (12, 9)])
def test_resizing_by_matrices_is_bilinear_resizing(size):
    from wsss.models.resize import resize_by_matrices

    x = torch.randn(2, 3, 8, 6, dtype=torch.float64, requires_grad=True)
    y = torch.randn(2, 3, *size, dtype=torch.float64)
    ours = resize_by_matrices(x, size)
    theirs = F.interpolate(x, size=size, mode="bilinear", align_corners=False)
    assert torch.allclose(ours, theirs, atol=1e-12)
    gradients = [torch.autograd.grad((out * y).sum(), x)[0] for out in (ours, theirs)]
    assert torch.allclose(*gradients, atol=1e-12)
