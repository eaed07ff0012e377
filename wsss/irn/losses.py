"""The training losses of IRN (CVPR 2019, section 4) over pairs of pixels within a radius.

Pairs are visited direction by direction and recomputed in the backward pass: at any moment one
direction's tensors exist, so memory does not grow with the number of neighbours (152 at radius 10).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from wsss.data.images import IGNORE
from wsss.errors import UserError
from wsss.irn.affinity import Direction, directions

BACKGROUND = 0
_EPS = 1e-5


@dataclass(frozen=True)
class IrnLosses:
    """The five terms (scalars, means over their pairs) and their combination.

    Attributes:
        background: -log affinity of background pairs.
        foreground: -log affinity of pairs of one foreground class.
        negative: -log(1 - affinity) of pairs of different labels.
        displacement_foreground: |D(source) - D(neighbour) - offset| of foreground pairs.
        displacement_background: |D(source) - D(neighbour)| of background pairs.
        counts: (3,) int64, numbers of background, foreground and unequal pairs of the batch.
    """

    background: Tensor
    foreground: Tensor
    negative: Tensor
    displacement_foreground: Tensor
    displacement_background: Tensor
    counts: Tensor

    @property
    def affinity(self) -> Tensor:
        """The edge branch's loss: (mean of the two positive terms + negative term) / 2."""
        return ((self.background + self.foreground) / 2 + self.negative) / 2

    @property
    def displacement(self) -> Tensor:
        """The displacement branch's loss."""
        return (self.displacement_foreground + self.displacement_background) / 2

    @property
    def total(self) -> Tensor:
        """What training minimises."""
        return self.affinity + self.displacement

    def scalars(self) -> dict[str, Tensor]:
        """Return the total and the terms, by the names that the log gives them."""
        return {
            "total": self.total,
            "affinity_background": self.background,
            "affinity_foreground": self.foreground,
            "affinity_negative": self.negative,
            "displacement_foreground": self.displacement_foreground,
            "displacement_background": self.displacement_background,
        }


def pair_counts(label: Tensor, *, radius: int = 10) -> Tensor:
    """Return the numbers of background, foreground and unequal pairs, (3,) int64.

    They depend on the labels alone, so that a batch that goes through the network in parts knows
    them beforehand.

    Args:
        label: (B, h, w) integers, as for `irn_losses`.
        radius: As there.
    """
    label = label.to(torch.int16)
    counts = torch.zeros(3, dtype=torch.int64, device=label.device)
    for direction in directions(radius):
        _, masks = _pair_masks(label, direction, radius - 1)
        counts += masks.sum(1)
    return counts


def irn_losses(
    edge_logit: Tensor,
    displacement: Tensor,
    label: Tensor,
    *,
    radius: int = 10,
    pairs: Tensor | None = None,
) -> IrnLosses:
    """Compute all losses of a batch, or what a part of it adds to them.

    Args:
        edge_logit: (B, h, w) float, before the sigmoid.
        displacement: (B, 2, h, w) float, channels (dy, dx) in pixels of this map.
        label: (B, h, w) integers: 0 background, 1.. classes (any number), 255 left out.
        radius: Neighbours have dx^2 + dy^2 < radius^2.
        pairs: `pair_counts` of the whole batch, of which this is a part; None: this is the batch.

    Returns:
        The terms; a term without pairs is 0.

    Raises:
        UserError: The map is too small for the radius, or shapes differ.
    """
    height, width = edge_logit.shape[-2:]
    reach = radius - 1
    if height <= reach or width <= 2 * reach:
        raise UserError(
            f"IRN training maps of {height} x {width} leave no pairs at path radius {radius}",
            expected=f"at least {reach + 1} x {2 * reach + 1} (crop / 4)",
            fix="raise irn.crop_px or lower irn.radius",
        )
    if label.shape != edge_logit.shape or displacement.shape != (
        edge_logit.shape[0],
        2,
        height,
        width,
    ):
        raise UserError(
            f"edges {tuple(edge_logit.shape)}, displacements {tuple(displacement.shape)} and "
            f"labels {tuple(label.shape)} do not belong together",
            expected="(B, h, w), (B, 2, h, w) and (B, h, w)",
        )
    edge = torch.sigmoid(edge_logit.float())
    displacement = displacement.float()
    label = label.to(torch.int16)  # a quarter of the memory that int64 moves
    sums = edge.new_zeros(5)
    counts = torch.zeros(3, dtype=torch.int64, device=edge.device)
    for direction in directions(radius):
        part, count = checkpoint(
            _direction_sums,
            edge,
            displacement,
            label,
            direction,
            reach,
            use_reentrant=False,
            preserve_rng_state=False,
        )
        sums = sums + part
        counts = counts + count
    if pairs is not None:
        counts = pairs
    per_pair = counts.to(sums.dtype)
    # A displacement pair has two numbers, dy and dx.
    numbers = torch.cat([per_pair, 2 * per_pair[[1, 0]]]) + _EPS
    means = sums / numbers
    return IrnLosses(
        background=means[0],
        foreground=means[1],
        negative=means[2],
        displacement_foreground=means[3],
        displacement_background=means[4],
        counts=counts,
    )


def _window(maps: Tensor, dy: int, dx: int, rows: int, columns: int, reach: int) -> Tensor:
    return maps[..., dy : dy + rows, reach + dx : reach + dx + columns]


class _PathMaximum(torch.autograd.Function):
    """Largest edge on every source's path; the gradient goes to that pixel.

    Same as a chain of `torch.maximum` over windows, whose backward pass fills a whole map for each
    window and took most of the training step on a CPU.
    """

    @staticmethod
    def forward(
        ctx: Any,
        edge: Tensor,
        path: tuple[tuple[int, int], ...],
        rows: int,
        columns: int,
        reach: int,
    ) -> Tensor:
        strongest = _window(edge, *path[0], rows, columns, reach).clone()
        place = torch.zeros_like(strongest, dtype=torch.uint8)
        for i, (y, x) in enumerate(path[1:], start=1):
            candidate = _window(edge, y, x, rows, columns, reach)
            place.masked_fill_(candidate > strongest, i)
            torch.maximum(strongest, candidate, out=strongest)
        ctx.save_for_backward(place)
        ctx.geometry = (edge.shape, path, rows, columns, reach)
        return strongest

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None, None]:
        (place,) = ctx.saved_tensors
        shape, path, rows, columns, reach = ctx.geometry
        of_edge = gradient.new_zeros(shape)
        for i, (y, x) in enumerate(path):
            _window(of_edge, y, x, rows, columns, reach).addcmul_(
                gradient, (place == i).to(gradient.dtype)
            )
        return of_edge, None, None, None, None


def _pair_masks(label: Tensor, direction: Direction, reach: int) -> tuple[Tensor, Tensor]:
    """Return which pairs of a direction are equal or not, and (3, pairs) which are what.

    Rows of the second: background, foreground of one class, unequal; pairs as in a flat (B, h, w).
    """
    rows, columns = label.shape[-2] - reach, label.shape[-1] - 2 * reach
    here = _window(label, 0, 0, rows, columns, reach)
    there = _window(label, direction.dy, direction.dx, rows, columns, reach)
    known = (here != IGNORE) & (there != IGNORE)
    same = here == there
    equal = known & same
    background = equal & (here == BACKGROUND)
    foreground = equal & (here != BACKGROUND)
    return same, torch.stack([background, foreground, known & ~same]).flatten(1)


def _direction_sums(
    edge: Tensor, displacement: Tensor, label: Tensor, direction: Direction, reach: int
) -> tuple[Tensor, Tensor]:
    """Sum the five terms over the pairs of one direction; also their three numbers."""
    rows = edge.shape[-2] - reach
    columns = edge.shape[-1] - 2 * reach

    def shifted(maps: Tensor, dy: int, dx: int) -> Tensor:
        # Sources are the pixels from which every neighbour lies inside the map.
        return _window(maps, dy, dx, rows, columns, reach)

    strongest: Tensor = _PathMaximum.apply(edge, direction.path, rows, columns, reach)

    same, masks = _pair_masks(label, direction, reach)
    foreground = masks[1].view(same.shape)

    # affinity = 1 - strongest, and its complement where the labels differ: one logarithm a pair.
    agreement = torch.where(same, 1 - strongest, strongest)
    affinity_loss = -torch.log(agreement + _EPS)
    move = shifted(displacement, 0, 0) - shifted(displacement, direction.dy, direction.dx)
    offset = move.new_tensor([direction.dy, direction.dx])[:, None, None]
    away = (move - offset * foreground[:, None]).abs().sum(1)
    chosen = masks.to(strongest.dtype)
    affinity_sums = chosen @ affinity_loss.flatten()
    displacement_sums = chosen[:2] @ away.flatten()
    sums = torch.cat([affinity_sums, displacement_sums.flip(0)])
    return sums, masks.sum(1)
