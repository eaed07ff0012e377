"""Random walk of CAM scores along semantic affinities (IRN, CVPR 2019, section 5).

One step replaces a score by the mean of its neighbours', weighted by the affinities W with d their
column sums: `P = D^-1 W`, 69 entries a row for radius 5. P is similar to a symmetric matrix with
its spectrum in [-1, 1], where x^n has a short Chebyshev expansion: its coefficients are those of a
binomial distribution, and all but the first few times sqrt(n) vanish. 256 steps then cost 78
products with P, each a sum of shifted, weighted copies of the map; no N x N matrix is ever formed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

from wsss.errors import UserError
from wsss.irn.affinity import FlatGrid, PairLine, pair_affinities

# Bound on the sum of the coefficients left out: below float32's rounding over the products (5e-6
# of the map's maximum), and far below what the dense float32 walk itself is off (6e-5).
TRUNCATION = 1e-6


@lru_cache(maxsize=32)
def power_coefficients(steps: int, tolerance: float = TRUNCATION) -> tuple[float, ...]:
    """Return c with x^steps = sum_k c[k] T_k(x) up to `tolerance` on [-1, 1].

    `x^n = 2^-n sum_j C(n, j) T_|n-2j|(x)`: only orders of n's parity occur. Computed with exact
    integers, rounded once to float64.
    """
    if steps < 1:
        raise UserError(f"{steps} walk steps", expected="1 or more")
    coefficients = [0.0] * (steps + 1)
    kept = 0.0
    for order in range(steps % 2, steps + 1, 2):
        ways = math.comb(steps, (steps - order) // 2) * (1 if order == 0 else 2)
        coefficients[order] = ways / 2**steps
        kept += coefficients[order]
        if 1.0 - kept < tolerance:
            return tuple(coefficients[: order + 1])
    return tuple(coefficients)


def random_walk(
    cam: Tensor, edge: Tensor, *, radius: int = 5, beta: float = 10.0, steps: int = 256
) -> Tensor:
    """Walk the scores of one image or of a batch of equally sized maps.

    Args:
        cam: (..., K, h, w) float scores, one map a class.
        edge: (..., h, w) float in 0..1, 1 = boundary. Outside the map the edge is 1.
        radius: Neighbours have dx^2 + dy^2 < radius^2.
        beta: Exponent of the affinities.
        steps: Number of walk steps (2**8 in IRN).

    Returns:
        (..., K, h, w) float32 on cam's device, of `cam * (1 - edge)` after the walk.

    Raises:
        UserError: The shapes do not belong together.
    """
    if cam.shape[:-3] + cam.shape[-2:] != edge.shape:
        raise UserError(
            f"CAM of shape {tuple(cam.shape)} and edge of shape {tuple(edge.shape)}",
            expected="(..., classes, h, w) and (..., h, w)",
        )
    cam = cam.float()
    edge = edge.float()
    grid = FlatGrid(cam.shape[-2], cam.shape[-1], radius - 1)
    pairs = pair_affinities(edge, grid, radius, beta)
    start = grid.flatten(cam * (1 - edge).unsqueeze(-3), 0.0)
    walked = _walk(start, pairs, power_coefficients(steps))
    return grid.unflatten(walked).contiguous()


def random_walk_batch(
    cams: Sequence[Tensor],
    edges: Sequence[Tensor],
    *,
    radius: int = 5,
    beta: float = 10.0,
    steps: int = 256,
) -> list[Tensor]:
    """Walk several images of any sizes and numbers of classes at once: what a GPU needs.

    Args:
        cams: One (K, h, w) tensor an image, all on one device.
        edges: One (h, w) tensor an image.
        radius: As in `random_walk`.
        beta: As in `random_walk`.
        steps: As in `random_walk`.

    Returns:
        One (K, h, w) float32 tensor an image; the same values as image by image, because maps are
        filled up with edge 1, which nothing crosses.
    """
    if not cams:
        return []
    classes = max(cam.shape[0] for cam in cams)
    height = max(cam.shape[1] for cam in cams)
    width = max(cam.shape[2] for cam in cams)
    all_cams = cams[0].new_zeros((len(cams), classes, height, width), dtype=torch.float32)
    all_edges = edges[0].new_ones((len(cams), height, width), dtype=torch.float32)
    for i, (cam, edge) in enumerate(zip(cams, edges, strict=True)):
        all_cams[i, : cam.shape[0], : cam.shape[1], : cam.shape[2]] = cam
        all_edges[i, : edge.shape[0], : edge.shape[1]] = edge
    walked = random_walk(all_cams, all_edges, radius=radius, beta=beta, steps=steps)
    return [walked[i, : cam.shape[0], : cam.shape[1], : cam.shape[2]] for i, cam in enumerate(cams)]


def _column_sums(pairs: list[PairLine], like: Tensor) -> Tensor:
    sums = torch.ones_like(like)  # the diagonal
    length = sums.shape[-1]
    for pair in pairs:
        sums[..., : length - pair.step] += pair.affinity
        sums[..., pair.step :] += pair.affinity
    return sums


def _walk(start: Tensor, pairs: list[PairLine], coefficients: tuple[float, ...]) -> Tensor:
    """Return sum_k c[k] T_k(P) start, with P = D^-1 W, for start (..., K, length).

    The recurrence T_k+1 = 2 P T_k - T_k-1 is run on the differences of successive terms,
    `T_k+1 - T_k = (T_k - T_k-1) + 2 (P - 1) T_k`, and `(P - 1) x` is a sum of flows between
    neighbours, w (x_there - x_here). Both are small where x is smooth, so float32 keeps 1e-6; run
    as it stands, the recurrence amplifies rounding by the square of its length, to 4e-4.
    """
    length = start.shape[-1]
    per_sum = _column_sums(pairs, start[..., 0, :]).reciprocal().unsqueeze(-2)
    term = start.clone()
    change = torch.zeros_like(start)
    inflow = torch.empty_like(start)
    flow = torch.empty_like(start)
    # Cut once: every product reuses these views.
    views = [
        (
            pair.affinity.unsqueeze(-2),
            term[..., : length - pair.step],
            term[..., pair.step :],
            inflow[..., : length - pair.step],
            inflow[..., pair.step :],
            flow[..., : length - pair.step],
        )
        for pair in pairs
    ]
    total = coefficients[0] * start
    for order in range(1, len(coefficients)):
        inflow.zero_()
        for affinity, here, there, into_here, into_there, through in views:
            torch.sub(there, here, out=through).mul_(affinity)
            into_here.add_(through)
            into_there.sub_(through)
        change.addcmul_(inflow, per_sum, value=1.0 if order == 1 else 2.0)
        term.add_(change)
        if coefficients[order]:
            total.add_(term, alpha=coefficients[order])
    return total
