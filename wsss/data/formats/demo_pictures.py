"""The demo data set: generated pictures on which a plain class activation map is not enough.

Every class has a small telling part, a disc with a pattern and colours of its own, on a large
plain body whose colours are shared by all classes: a classifier needs the part alone, so its
map stays there, while the masks cover part and body. Two of the classes mostly come together.

The generator is frozen: it is a test of the method, not a stage for good numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import maximum_filter, minimum_filter

from wsss.data.formats.demo_shapes import (
    Dice,
    Field,
    Pose,
    body_mask,
    colour,
    part_pattern,
    smooth_noise,
)
from wsss.data.images import IGNORE, write_label
from wsss.files import atomic_directory

TRAIN_IMAGES = 240
VAL_IMAGES = 80
_SEED = 20230618


@dataclass(frozen=True)
class _Kind:
    """One class: its pattern, the pattern's two colours, and how its body is tinted."""

    name: str
    pattern: str
    colours: tuple[tuple[float, float, float], tuple[float, float, float]]
    body_hue_weights: tuple[float, float, float, float, float]


# Colours as hue (turns), saturation, value. Each class leans towards one body hue, but half of
# its bodies have another: the body hints at the class and does not tell it.
_KINDS = (
    _Kind("beetle", "rings", ((0.99, 0.85, 0.85), (0.0, 0.0, 0.97)), (4, 1, 1, 1, 1)),
    _Kind("fish", "stripes", ((0.15, 0.95, 0.95), (0.0, 0.0, 0.08)), (1, 4, 1, 1, 1)),
    _Kind("kite", "checker", ((0.61, 0.90, 0.80), (0.0, 0.0, 0.97)), (1, 1, 4, 1, 1)),
    _Kind("lamp", "star", ((0.86, 0.80, 0.55), (0.14, 0.65, 1.0)), (1, 1, 1, 4, 1)),
    _Kind("radio", "cross", ((0.38, 0.85, 0.55), (0.0, 0.0, 0.05)), (1, 1, 1, 1, 4)),
)
DEMO_CLASSES = tuple(kind.name for kind in _KINDS)
_COMPANION = {3: 4}  # a lamp mostly brings a radio
_COMPANION_CHANCE = 0.7
_BODY_HUES = (0.05, 0.21, 0.47, 0.67, 0.85)


@dataclass(frozen=True)
class DemoPicture:
    """One picture: name, set, (H, W, 3) uint8 RGB, (H, W) uint8 labels, tags in class order."""

    name: str
    set_name: str
    image: NDArray[np.uint8]
    label: NDArray[np.uint8]
    tags: tuple[str, ...]


def _background(dice: Dice, height: int, width: int) -> Field:
    """Return (H, W, 3): noise at four scales between dull colours, strewn with scraps."""
    dull = [
        colour(dice.uniform(0, 1), dice.uniform(0.05, 0.3), dice.uniform(0.2, 0.85))
        for _ in range(3)
    ]
    coarse = smooth_noise(dice, height, width, 40)[..., None]
    middle = smooth_noise(dice, height, width, 13)[..., None]
    picture = dull[0] * coarse + dull[1] * (1 - coarse)
    picture = picture * (1 - 0.5 * middle) + dull[2] * 0.5 * middle
    for cell_px, strength in ((5, 0.30), (2, 0.22)):
        picture = picture + strength * (smooth_noise(dice, height, width, cell_px) - 0.5)[..., None]
    for _ in range(14 + dice.below(12)):
        long_px, thin = dice.uniform(4, 18), dice.uniform(0.12, 0.6)
        pose = Pose(
            dice.uniform(0, height),
            dice.uniform(0, width),
            long_px * thin,
            long_px,
            dice.uniform(0, 6.283),
        )
        v, u = pose.local(height, width)
        inside = np.maximum(np.abs(v), np.abs(u)) < 1 if dice.below(2) else v * v + u * u < 1
        tint = colour(dice.uniform(0, 1), dice.uniform(0.1, 0.6), dice.uniform(0.15, 0.9))
        picture[inside] = 0.35 * picture[inside] + 0.65 * tint
    return picture


@dataclass(frozen=True)
class _Placed:
    kind: int
    body: NDArray[np.bool_]
    part: NDArray[np.bool_]
    pose: Pose
    part_pose: Pose

    @property
    def whole(self) -> NDArray[np.bool_]:
        return self.body | self.part


def _place(dice: Dice, kind: int, height: int, width: int) -> _Placed:
    half_width = dice.uniform(27, 39)
    half_height = half_width * dice.uniform(0.65, 1.0)
    margin = 0.6 * half_width
    pose = Pose(
        dice.uniform(margin, height - margin),
        dice.uniform(margin, width - margin),
        half_height,
        half_width,
        dice.uniform(0, 6.283),
    )
    # The part sits at one end of the body, half over its edge, as a head does.
    end = 0.85 * half_width * (1 if dice.below(2) else -1)
    radius = dice.uniform(10.0, 13.5)
    part_pose = Pose(
        pose.y + end * np.sin(pose.turn),
        pose.x + end * np.cos(pose.turn),
        radius,
        radius,
        dice.uniform(0, 6.283),
    )
    v, u = part_pose.local(height, width)
    return _Placed(kind, body_mask(pose, dice, height, width), v * v + u * u < 1, pose, part_pose)


def _fits(new: _Placed, placed: list[_Placed]) -> bool:
    """Say whether all parts stay in sight and every object keeps most of its area."""
    if new.part.sum() < 0.9 * np.pi * new.part_pose.half_width_px**2:
        return False
    for other in placed:
        if (new.whole & other.part).any() or (new.part & other.whole).any():
            return False
        if (new.whole & other.whole).sum() > 0.2 * min(new.whole.sum(), other.whole.sum()):
            return False
    return True


def _paint(picture: Field, item: _Placed, dice: Dice) -> None:
    """Paint body and part into `picture`, (H, W, 3), in place."""
    kind = _KINDS[item.kind]
    height, width = picture.shape[:2]
    hue = _BODY_HUES[dice.weighted(kind.body_hue_weights)] + dice.uniform(-0.05, 0.05)
    tint = colour(hue % 1.0, dice.uniform(0.45, 0.75), dice.uniform(0.5, 0.85))
    v, u = item.pose.local(height, width)
    shade = 0.12 * (smooth_noise(dice, height, width, 22) - 0.5) - 0.10 * v * np.abs(v)
    grain = 0.10 * (smooth_noise(dice, height, width, 3) - 0.5)
    body = tint + (shade + grain)[..., None] * (0.5 + tint)
    picture[item.body] = body[item.body]
    v, u = item.part_pose.local(height, width)
    pattern = part_pattern(kind.pattern, v, u)[..., None]
    ink, paper = (colour((h + dice.uniform(-0.02, 0.02)) % 1.0, s, b) for h, s, b in kind.colours)
    light = 0.9 + 0.1 * dice.uniform(0, 1)
    picture[item.part] = (light * (pattern * ink + (1 - pattern) * paper))[item.part]


def _draw_kinds(dice: Dice, number: int) -> list[int]:
    """Return the classes of a picture's objects; the first goes round the classes in turn."""
    kinds = [number % len(_KINDS)]
    if kinds[0] in _COMPANION and dice.uniform(0, 1) < _COMPANION_CHANCE:
        kinds.append(_COMPANION[kinds[0]])
    while len(kinds) < 2 or (len(kinds) < 4 and dice.uniform(0, 1) < 0.35):
        kinds.append(dice.below(len(_KINDS)))
    return kinds


def _label(owner: NDArray[np.int64], kinds: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Return labels: class + 1 of the object a pixel belongs to (-1: none), 255 at its border.

    A pixel is border where its 3 x 3 neighbourhood holds another object, so borders are two
    pixels wide and also part objects of one class.
    """
    values = np.concatenate([kinds + 1, [0]]).astype(np.uint8)
    label = values[owner]
    highest, lowest = (filtered(owner, 3) for filtered in (maximum_filter, minimum_filter))
    label[highest != lowest] = IGNORE
    return label


def draw_picture(number: int) -> DemoPicture:
    """Draw one picture; the same number gives the same pixels everywhere.

    Args:
        number: 0..TRAIN_IMAGES-1 for training, the following VAL_IMAGES for validation.
    """
    dice = Dice(_SEED, number)
    height, width = 140 + dice.below(41), 140 + dice.below(41)
    picture = _background(dice, height, width)
    owner = np.full((height, width), -1)
    placed: list[_Placed] = []
    for kind in _draw_kinds(dice, number):
        for _ in range(25):
            candidate = _place(dice, kind, height, width)
            if _fits(candidate, placed):
                owner[candidate.whole] = len(placed)
                placed.append(candidate)
                _paint(picture, candidate, dice)
                break
    picture = picture + 0.05 * (dice.field(height, width, 3) - 0.5)
    image = np.round(np.clip(picture, 0, 1) * 255).astype(np.uint8)
    kinds = np.array([item.kind for item in placed])
    tags = tuple(DEMO_CLASSES[kind] for kind in sorted(set(kinds.tolist())))
    set_name = "train" if number < TRAIN_IMAGES else "val"
    return DemoPicture(f"demo_{number:03d}", set_name, image, _label(owner, kinds), tags)


def generate_demo(*, output: Path) -> None:
    """Write the demo data set as a plain folder (images/, labels.csv, classes.txt, masks/).

    Args:
        output: Folder to write; it appears at once, and replaces what was there.
    """
    with atomic_directory(output) as folder:
        (folder / "images").mkdir()
        (folder / "masks").mkdir()
        lines = ["image,tags,set\n"]
        for number in range(TRAIN_IMAGES + VAL_IMAGES):
            drawn = draw_picture(number)
            Image.fromarray(drawn.image).save(
                folder / "images" / f"{drawn.name}.png", compress_level=6
            )
            write_label(folder / "masks" / f"{drawn.name}.png", drawn.label)
            lines.append(f"{drawn.name}.png,{';'.join(drawn.tags)},{drawn.set_name}\n")
        (folder / "labels.csv").write_text("".join(lines), encoding="utf-8")
        (folder / "classes.txt").write_text("\n".join(DEMO_CLASSES) + "\n", encoding="utf-8")
