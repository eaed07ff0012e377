"""IRN's losses against the published numbers and a loop over single pairs."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from wsss.errors import UserError
from wsss.irn.affinity import directions
from wsss.irn.losses import IrnLosses, irn_losses

REFERENCE = Path(__file__).parents[1] / "reference" / "irn_loss.npz"


def test_agrees_with_the_published_losses() -> None:
    with np.load(REFERENCE) as data:
        losses = irn_losses(
            torch.from_numpy(data["edge_logit"])[None],
            torch.from_numpy(data["displacement"])[None],
            torch.from_numpy(data["label"])[None],
            radius=10,
        )
        assert losses.counts.tolist() == [
            int(data[name]) for name in ("num_bg_pos", "num_fg_pos", "num_neg")
        ]
        for found, name in (
            (losses.background, "bg_pos"),
            (losses.foreground, "fg_pos"),
            (losses.negative, "neg"),
            (losses.displacement_foreground, "dp_fg"),
            (losses.displacement_background, "dp_bg"),
            (losses.total, "total"),
        ):
            assert float(found) == pytest.approx(float(data[name]), rel=1e-5), name


def pair_loop(
    edge_logit: torch.Tensor, displacement: torch.Tensor, label: torch.Tensor, radius: int
) -> torch.Tensor:
    """The total, pair by pair; differentiable, for float64 inputs."""
    edge = torch.sigmoid(edge_logit)
    height, width = label.shape[1:]
    terms: dict[str, list[torch.Tensor]] = {"bg": [], "fg": [], "neg": [], "dfg": [], "dbg": []}
    for b in range(len(label)):
        for y in range(height - radius + 1):
            for x in range(radius - 1, width - radius + 1):
                for dy in range(radius):
                    for dx in range(-radius + 1, radius):
                        if (dy == 0 and dx <= 0) or dy * dy + dx * dx >= radius * radius:
                            continue
                        here, there = int(label[b, y, x]), int(label[b, y + dy, x + dx])
                        if 255 in (here, there):
                            continue
                        path = []
                        for py in range(dy + 1):
                            for px in range(min(dx, 0), max(dx, 0) + 1):
                                if abs(dy * px - dx * py) / math.hypot(dy, dx) < 1:
                                    path.append(edge[b, y + py, x + px])
                        affinity = 1 - torch.stack(path).max()
                        move = displacement[b, :, y, x] - displacement[b, :, y + dy, x + dx]
                        if here != there:
                            terms["neg"].append(-torch.log(1 + 1e-5 - affinity))
                        elif here == 0:
                            terms["bg"].append(-torch.log(affinity + 1e-5))
                            terms["dbg"].append(move.abs().mean())
                        else:
                            terms["fg"].append(-torch.log(affinity + 1e-5))
                            offset = move.new_tensor([dy, dx])
                            terms["dfg"].append((move - offset).abs().mean())
    mean = {name: torch.stack(values).mean() for name, values in terms.items()}
    return ((mean["bg"] + mean["fg"]) / 2 + mean["neg"]) / 2 + (mean["dfg"] + mean["dbg"]) / 2


def small_batch() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    label = torch.zeros(2, 8, 9, dtype=torch.int64)
    label[0, :, 4:] = 1
    label[0, 5:, 6:] = 255
    label[1, 3:] = 81  # beyond VOC's classes: the foreground test holds for any number of them
    label[1, 3:, 6:] = 3
    edge_logit = torch.randn(2, 8, 9, generator=generator)
    displacement = torch.randn(2, 2, 8, 9, generator=generator)
    return edge_logit, displacement, label


def test_value_and_gradient_agree_with_a_loop_over_pairs() -> None:
    edge_logit, displacement, label = small_batch()
    inputs = [edge_logit.requires_grad_(), displacement.requires_grad_()]
    doubles = [tensor.detach().double().requires_grad_() for tensor in inputs]
    found = irn_losses(*inputs, label, radius=4).total
    expected = pair_loop(*doubles, label, radius=4)
    assert float(found.detach()) == pytest.approx(float(expected.detach()), rel=1e-5)
    for mine, exact in zip(
        torch.autograd.grad(found, inputs), torch.autograd.grad(expected, doubles), strict=True
    ):
        torch.testing.assert_close(mine.double(), exact, rtol=1e-4, atol=1e-6)


def test_no_pairs_give_zero_and_a_finite_gradient() -> None:
    edge_logit = torch.randn(1, 8, 12, requires_grad=True)
    displacement = torch.randn(1, 2, 8, 12, requires_grad=True)
    losses: IrnLosses = irn_losses(edge_logit, displacement, torch.full((1, 8, 12), 255), radius=4)
    losses.total.backward()
    assert float(losses.total.detach()) == 0
    assert edge_logit.grad is not None and not edge_logit.grad.any()


def test_half_discs() -> None:
    assert len(directions(5)) == 34
    assert len(directions(10)) == 152
    for direction in directions(10):
        assert (0, 0) in direction.path
        assert (direction.dy, direction.dx) in direction.path


def test_a_map_too_small_for_the_radius_is_named() -> None:
    with pytest.raises(UserError, match="radius 10"):
        irn_losses(torch.zeros(1, 9, 30), torch.zeros(1, 2, 9, 30), torch.zeros(1, 9, 30))
    with pytest.raises(UserError, match="do not belong"):
        irn_losses(torch.zeros(1, 20, 30), torch.zeros(1, 2, 9, 30), torch.zeros(1, 20, 30))
