"""Which pixels are neighbours and which pixels lie on the straight path between them.

The training losses and the random walk of IRN (CVPR 2019, sections 4 and 5) both rate a pair of
pixels by the strongest edge on the path between them. Each unordered pair is met once, in the
direction with dy > 0, or dy = 0 and dx > 0; the map is symmetric, so the other half follows.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor


@dataclass(frozen=True)
class Direction:
    """A step from a pixel to one of its neighbours.

    Attributes:
        dy: Rows down, >= 0.
        dx: Columns to the right; > 0 where dy is 0.
        path: (row, column) relative to the source of every pixel closer than 1 to the segment
            between the two pixels, both ends included.
    """

    dy: int
    dx: int
    path: tuple[tuple[int, int], ...]


@lru_cache(maxsize=8)
def directions(radius: int) -> tuple[Direction, ...]:
    """Return the half disc of neighbours with dx^2 + dy^2 < radius^2, row by row.

    Radius 5 gives 34 directions: with the other half and the pixel itself, 69 entries a column.
    """
    half = []
    for dy in range(radius):
        for dx in range(-radius + 1, radius):
            if (dy > 0 or dx > 0) and dx * dx + dy * dy < radius * radius:
                half.append(Direction(dy, dx, _path(dy, dx)))
    return tuple(half)


def _path(dy: int, dx: int) -> tuple[tuple[int, int], ...]:
    # The segment lies inside the box spanned by its ends, so a pixel outside the box is at least
    # 1 away, and inside it the nearest point of the line is always on the segment. In integers:
    # distance to the line = |cross product| / length, without rounding.
    length_squared = dy * dy + dx * dx
    columns = range(min(dx, 0), max(dx, 0) + 1)
    return tuple(
        (y, x) for y in range(dy + 1) for x in columns if (dy * x - dx * y) ** 2 < length_squared
    )


@dataclass(frozen=True)
class FlatGrid:
    """Pixels of an (h, w) map laid out in one line, so that every neighbour is one fixed step away.

    Each row is followed by `margin` filler columns: whatever
    leaves the map to the left or to the right lands on a filler, never on another row's pixel.

    Attributes:
        height: Rows of the map.
        width: Columns of the map.
        margin: Largest |dx| of any direction.
    """

    height: int
    width: int
    margin: int

    @property
    def row_step(self) -> int:
        """Distance in the line between a pixel and the one below it."""
        return self.width + self.margin

    @property
    def length(self) -> int:
        """Number of places in the line, fillers included."""
        return self.height * self.row_step

    def step(self, dy: int, dx: int) -> int:
        """Return the distance in the line of a neighbour."""
        return dy * self.row_step + dx

    def flatten(self, maps: Tensor, filler: float) -> Tensor:
        """Lay (..., h, w) out as (..., length), fillers set to `filler`."""
        padded = torch.nn.functional.pad(maps, (0, self.margin), value=filler)
        return padded.flatten(-2)

    def unflatten(self, flat: Tensor) -> Tensor:
        """Undo `flatten`: (..., length) to (..., h, w)."""
        shape = (*flat.shape[:-1], self.height, self.row_step)
        return flat.reshape(shape)[..., : self.width]


@dataclass(frozen=True)
class PairLine:
    """The affinities of all pairs (p, p + step) of a flat map.

    Attributes:
        step: Distance between the two pixels in the line, > 0.
        affinity: (..., length - step) float in 0..1; 0 where either end is a filler.
    """

    step: int
    affinity: Tensor


def pair_affinities(edge: Tensor, grid: FlatGrid, radius: int, beta: float) -> list[PairLine]:
    """Return the affinities of all neighbours: (1 - largest edge on the path) ** beta.

    Outside the map the edge is 1, so that a pair with an end out there has affinity 0.

    Args:
        edge: (..., h, w) float, 0 (same object) .. 1 (boundary).
        grid: The layout for this map; its margin is at least radius - 1.
        radius: Neighbours have dx^2 + dy^2 < radius^2.
        beta: Exponent; larger values make edges block more.

    Returns:
        One line per direction that fits the map; the opposite direction has the same values.
    """
    # x -> (1 - x) ** beta falls monotonically: the power of the largest edge is the smallest power,
    # so it is taken once a pixel instead of once a pair.
    openness = grid.flatten((1 - edge).clamp_min(0) ** beta, 0.0)
    openness = torch.nn.functional.pad(openness, (grid.margin, grid.margin), value=0.0)
    lines = []
    for direction in directions(radius):
        step = grid.step(direction.dy, direction.dx)
        count = grid.length - step
        if count <= 0:
            continue
        starts = [grid.margin + grid.step(y, x) for y, x in direction.path]
        line = openness[..., starts[0] : starts[0] + count].clone()
        for start in starts[1:]:
            torch.minimum(line, openness[..., start : start + count], out=line)
        lines.append(PairLine(step, line))
    return lines
