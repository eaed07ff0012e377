"""Letters on pictures, in any script that a font of this machine has."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path

from PIL import ImageFont

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

# Where systems keep fonts; those of the widest coverage are looked at first.
FOLDERS = (Path("/usr/share/fonts"), Path("/usr/local/share/fonts"), Path("/Library/Fonts"))
_WIDE = ("cjk", "noto", "dejavu", "unifont")
# No font has a letter here, so that this is drawn as letters are that a font lacks.
_NO_LETTER = "\U0010fffe"


@cache
def font(size_px: int) -> Font:
    """Return Pillow's built-in font: no font file of the machine, so the same everywhere."""
    return ImageFont.load_default(size_px)


def has_letters(letters: Font, text: str) -> bool:
    """Say whether a font has every letter of a text."""
    if not isinstance(letters, ImageFont.FreeTypeFont):
        return text.isascii()
    lacking = bytes(letters.getmask(_NO_LETTER))
    return all(each.isspace() or bytes(letters.getmask(each)) != lacking for each in set(text))


def _files() -> Iterator[Path]:
    folders = (*FOLDERS, Path.home() / ".fonts", Path.home() / ".local" / "share" / "fonts")
    files = [
        path
        for folder in folders
        if folder.is_dir()
        for path in sorted(folder.rglob("*"))
        if path.suffix.lower() in (".ttf", ".ttc", ".otf")
    ]
    # A stable sort: of equal names the order of the folders.
    yield from sorted(files, key=lambda path: not any(w in path.name.lower() for w in _WIDE))


@cache
def font_for(text: str, size_px: int) -> Font | None:
    """Return a font that has every letter of a text: the built-in one, else one of the system's.

    Returns:
        The font; None: no font here has them.
    """
    if has_letters(font(size_px), text):
        return font(size_px)
    for path in _files():
        try:
            found = ImageFont.truetype(path, size_px)
        except OSError:
            continue  # a font file of a kind that Pillow does not read
        if has_letters(found, text):
            return found
    return None


def lettered(text: str, otherwise: str, size_px: int) -> tuple[str, Font]:
    """Return a text and a font that has its letters; `otherwise` where no font here has them."""
    found = font_for(text, size_px)
    return (otherwise, font(size_px)) if found is None else (text, found)


def shortened(text: str, letters: Font, width_px: float) -> str:
    """Return a text, cut with an ellipsis where it is wider than `width_px`."""
    if letters.getlength(text) <= width_px:
        return text
    kept = text
    while kept and letters.getlength(f"{kept}...") > width_px:
        kept = kept[:-1]
    return f"{kept.rstrip()}..."
