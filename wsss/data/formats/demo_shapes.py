"""Drawing for the demo data: noise, bodies and telling parts, in NumPy alone.

Only uniform random doubles are drawn and only float64 arithmetic is used, since those are the
same on every machine and with every version; NumPy's other distributions may change.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Field = NDArray[np.float64]


class Dice:
    """Random numbers of one picture, from (seed, picture number)."""

    def __init__(self, seed: int, number: int) -> None:
        self._generator = np.random.Generator(np.random.Philox(key=[seed, number]))

    def field(self, *shape: int) -> Field:
        """Return uniform doubles in 0..1."""
        return self._generator.random(shape)

    def uniform(self, low: float, high: float) -> float:
        """Return a double in low..high."""
        return low + (high - low) * float(self._generator.random())

    def below(self, number: int) -> int:
        """Return an integer in 0..number-1."""
        return min(int(self._generator.random() * number), number - 1)

    def weighted(self, weights: tuple[float, ...]) -> int:
        """Return a position drawn in proportion to the weights."""
        point = self.uniform(0, sum(weights))
        for position, weight in enumerate(weights):
            point -= weight
            if point < 0:
                return position
        return len(weights) - 1


def smooth_noise(dice: Dice, height: int, width: int, cell_px: float) -> Field:
    """Return (H, W) noise in 0..1: random values every `cell_px` pixels, bilinear between."""
    rows, columns = int(height / cell_px) + 2, int(width / cell_px) + 2
    grid = dice.field(rows, columns)
    y, x = np.arange(height) / cell_px, np.arange(width) / cell_px
    top, left = y.astype(int), x.astype(int)
    down, right = (y - top)[:, None], (x - left)[None, :]
    upper = grid[top][:, left] * (1 - right) + grid[top][:, left + 1] * right
    lower = grid[top + 1][:, left] * (1 - right) + grid[top + 1][:, left + 1] * right
    noise: Field = upper * (1 - down) + lower * down
    return noise


def colour(hue: float, saturation: float, value: float) -> Field:
    """Return (3,) RGB in 0..1 of a hue in turns (0..1), saturation and value in 0..1."""
    offsets = np.array([0.0, 2 / 3, 1 / 3])
    ramp = np.abs(((hue + offsets) % 1.0) * 6 - 3) - 1
    rgb: Field = value * (1 - saturation * (1 - np.clip(ramp, 0, 1)))
    return rgb


@dataclass(frozen=True)
class Pose:
    """Where and how large something is drawn: centre, half axes in pixels, turn in radians."""

    y: float
    x: float
    half_height_px: float
    half_width_px: float
    turn: float

    def local(self, height: int, width: int) -> tuple[Field, Field]:
        """Return the (H, W) coordinates v, u in which the shape spans -1..1."""
        rows = np.arange(height)[:, None] - self.y
        columns = np.arange(width)[None, :] - self.x
        sine, cosine = np.sin(self.turn), np.cos(self.turn)
        v = (cosine * rows - sine * columns) / self.half_height_px
        u = (sine * rows + cosine * columns) / self.half_width_px
        return v, u


def body_mask(pose: Pose, dice: Dice, height: int, width: int) -> NDArray[np.bool_]:
    """Return the (H, W) outline of a body: a superellipse with a wavy edge.

    The exponent and the waves are drawn anew for every body, so shapes tell nothing of classes.
    """
    v, u = pose.local(height, width)
    exponent = dice.uniform(1.7, 4.0)
    angle = np.arctan2(v, u)
    waves, phase = 2 + dice.below(4), dice.uniform(0, 6.283)
    edge = 1 + dice.uniform(0.0, 0.10) * np.sin(waves * angle + phase)
    inside: NDArray[np.bool_] = np.abs(v) ** exponent + np.abs(u) ** exponent < edge**exponent
    return inside


def part_pattern(kind: str, v: Field, u: Field) -> Field:
    """Return an (H, W) field of 0 and 1: the pattern that tells a class, over v, u in -1..1."""
    radius = np.sqrt(v * v + u * u)
    if kind == "rings":
        ink = np.floor(radius * 4.0) % 2 == 1
    elif kind == "stripes":
        ink = np.floor((u + 1) * 2.75) % 2 == 1
    elif kind == "checker":
        ink = (np.floor((u + 1) * 2.0) + np.floor((v + 1) * 2.0)) % 2 == 1
    elif kind == "star":
        ink = radius < 0.55 + 0.4 * np.cos(5 * np.arctan2(v, u))
    elif kind == "cross":
        ink = (np.abs(v) < 0.3) | (np.abs(u) < 0.3)
    else:
        raise ValueError(f"no pattern {kind!r}")
    return np.where(ink, 1.0, 0.0)
