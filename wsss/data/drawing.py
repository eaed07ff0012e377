"""Label maps, heat maps, titles and legends as RGB arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from wsss.data.images import voc_palette
from wsss.data.lettering import Font, font, lettered, shortened

Picture = npt.NDArray[np.uint8]
LINE_PX = 20
CONTACT_SHEET = "index.png"
_MARGIN_PX = 4


def resized(picture: Picture, width: int, *, smooth: bool = True) -> Picture:
    """Resize (H, W, 3) or (H, W) uint8 to a width, keeping its proportions."""
    height = max(1, round(picture.shape[0] * width / picture.shape[1]))
    method = Image.Resampling.BILINEAR if smooth else Image.Resampling.NEAREST
    return np.asarray(Image.fromarray(picture).resize((width, height), method))


def boundaries(label: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
    """Return (H, W) bool: pixels whose right or lower neighbour has another label."""
    edge = np.zeros(label.shape, dtype=bool)
    edge[:, :-1] |= label[:, :-1] != label[:, 1:]
    edge[:-1] |= label[:-1] != label[1:]
    return edge


def blend_labels(image: Picture, label: npt.NDArray[np.uint8], *, opacity: float = 0.6) -> Picture:
    """Colour an image by its labels: VOC colours, background left as it is, borders outlined.

    Args:
        image: (H, W, 3) uint8 RGB.
        label: (H, W) uint8; 255 is painted in the palette's cream.
        opacity: Weight of the colour, 0..1.
    """
    colours = voc_palette()[label].astype(np.float32)
    weight = np.where(label > 0, np.float32(opacity), np.float32(0))[..., None]
    blended = image * (1 - weight) + colours * weight
    # White with black beside it: one of them shows, on whatever picture.
    edge = boundaries(label)
    blended[_widened(edge)] = 0
    blended[edge] = 255
    return np.asarray(blended.round(), dtype=np.uint8)


def _widened(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Return (H, W) bool: what is set, and its four neighbours."""
    wide = mask.copy()
    wide[1:] |= mask[:-1]
    wide[:-1] |= mask[1:]
    wide[:, 1:] |= mask[:, :-1]
    wide[:, :-1] |= mask[:, 1:]
    return wide


def heat_map(
    image: Picture, strength: npt.NDArray[np.floating], *, opacity: float = 0.6
) -> Picture:
    """Lay a map of values in 0..1, (H, W), over an image: blue is 0, red is 1."""
    # Imported here: matplotlib is slow to import, and label pictures do without.
    from matplotlib import colormaps

    colours = colormaps["jet"](np.clip(strength, 0.0, 1.0))[..., :3] * 255
    return np.asarray((image * (1 - opacity) + colours * opacity).round(), dtype=np.uint8)


def titled(picture: Picture, title: str, *, otherwise: str = "?") -> Picture:
    """Put a line with a title above a picture, cut where the picture is too narrow for it.

    Args:
        picture: (H, W, 3) uint8 RGB.
        title: What to write.
        otherwise: What to write where no font here has the title's letters.
    """
    height, width = picture.shape[:2]
    canvas = Image.new("RGB", (width, height + LINE_PX), "white")
    canvas.paste(Image.fromarray(picture), (0, LINE_PX))
    text, letters = lettered(title, otherwise, 13)
    text = shortened(text, letters, width - 2 * _MARGIN_PX)
    draw = ImageDraw.Draw(canvas)
    draw.text((_MARGIN_PX, LINE_PX // 2), text, "black", font=letters, anchor="lm")
    return np.asarray(canvas)


def heat_scale(width: int) -> Picture:
    """Return a strip (LINE_PX, width, 3) uint8 with the colours of `heat_map` from 0 to 1."""
    from matplotlib import colormaps

    canvas = np.full((LINE_PX, width, 3), 255, dtype=np.uint8)
    left, right = 3 * _MARGIN_PX, width - 3 * _MARGIN_PX
    values = np.linspace(0.0, 1.0, right - left)
    colours = (colormaps["jet"](values)[:, :3] * 255).round().astype(np.uint8)
    canvas[_MARGIN_PX:-_MARGIN_PX, left:right] = colours
    picture = Image.fromarray(canvas)
    draw = ImageDraw.Draw(picture)
    for x, text in ((left - _MARGIN_PX, "0"), (right + _MARGIN_PX, "1")):
        draw.text((x, LINE_PX // 2), text, "black", font=font(11), anchor="mm")
    return np.asarray(picture)


def message(like: Picture, text: str) -> Picture:
    """Return a grey picture of the same size with a text in its middle."""
    height, width = like.shape[:2]
    grey = np.full((height, width, 3), 225, dtype=np.uint8)
    canvas = Image.fromarray(grey)
    draw = ImageDraw.Draw(canvas)
    draw.text((width // 2, height // 2), text, (90, 90, 90), font=font(13), anchor="mm")
    return np.asarray(canvas)


def legend(width: int, entries: Sequence[tuple[int, str]]) -> Picture:
    """Return a strip of coloured squares with texts, broken into lines of at most `width`.

    Args:
        width: Pixels.
        entries: (label, text); the label decides the colour, and stands for a text in a script
            that no font here has.

    Returns:
        (n * LINE_PX, width, 3) uint8; no lines without entries.
    """
    palette = voc_palette()
    square = LINE_PX - 2 * _MARGIN_PX
    places: list[tuple[int, int, int, str, Font]] = []
    x, line = _MARGIN_PX, 0
    for label, name in entries:
        text, letters = lettered(name, f"class {label}", 13)
        # One pixel more a letter than measured would be too narrow for none.
        needed = square + 2 * _MARGIN_PX + int(letters.getlength(text)) + 2 * _MARGIN_PX
        if x > _MARGIN_PX and x + needed > width:
            x, line = _MARGIN_PX, line + 1
        places.append((x, line, label, text, letters))
        x += needed
    lines = line + 1 if entries else 0
    canvas = Image.new("RGB", (width, lines * LINE_PX), "white")
    draw = ImageDraw.Draw(canvas)
    for left, row, label, text, letters in places:
        top = row * LINE_PX + _MARGIN_PX
        box = (left, top, left + square, top + square)
        draw.rectangle(box, tuple(int(v) for v in palette[label]), "black")
        middle = row * LINE_PX + LINE_PX // 2
        draw.text((left + square + _MARGIN_PX, middle), text, "black", font=letters, anchor="lm")
    return np.asarray(canvas).reshape(lines * LINE_PX, width, 3)


def beside(pictures: Sequence[Picture], gap_px: int = 4) -> Picture:
    """Join pictures side by side, tops aligned, white between and below."""
    height = max(picture.shape[0] for picture in pictures)
    width = sum(picture.shape[1] for picture in pictures) + gap_px * (len(pictures) - 1)
    canvas = np.full((height, width, 3), 255, dtype=np.uint8)
    x = 0
    for picture in pictures:
        canvas[: picture.shape[0], x : x + picture.shape[1]] = picture
        x += picture.shape[1] + gap_px
    return canvas


def below(pictures: Sequence[Picture], gap_px: int = 4) -> Picture:
    """Join pictures one below the other, left sides aligned, white between and beside."""
    turned = beside([picture.swapaxes(0, 1) for picture in pictures], gap_px)
    return np.ascontiguousarray(turned.swapaxes(0, 1))


def save_all(pictures: Mapping[str, Picture], folder: Path) -> None:
    """Write `NAME.png` for every picture, and the contact sheet `index.png` of all of them."""
    files = {f"{name}.png": picture for name, picture in pictures.items()}
    files[CONTACT_SHEET] = below(list(pictures.values()), gap_px=8)
    for name, picture in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(path, format="PNG")
