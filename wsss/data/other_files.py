"""What a file is that is called as a picture and is none that is read."""

from __future__ import annotations

from os import PathLike
from pathlib import Path

_BYTES = 64
# HEIF's family: a box of this kind first, then the brand.
_BOX = slice(4, 8)
_BRAND = slice(8, 12)
_HEIF = {b"heic": "HEIC", b"heix": "HEIC", b"mif1": "HEIF", b"msf1": "HEIF", b"avif": "AVIF"}
_HEIF_TODO = "convert it (or, with pillow-heif installed, call HEIC .heic)"
_BEGINNINGS = {
    b"GIF8": "a GIF; convert it",
    b"%PDF": "a PDF; convert its pages",
    b"8BPS": "a Photoshop file; export it",
    b"version https://git-lfs": "Git LFS's note of a file that was not fetched (git lfs pull)",
    b"<": "a web page, an SVG or another text, perhaps in the place of what could not be fetched",
}


def what_it_is(path: str | PathLike[str]) -> str:
    """Return words on what a file is by its beginning, and what to do; none, where that is open."""
    try:
        with open(path, "rb") as file:
            start = file.read(_BYTES)
    except OSError:
        return ""
    if not start:
        return ": it is empty"
    is_named_so = Path(path).suffix.lower() in (".heic", ".heif")
    if start[_BOX] == b"ftyp" and start[_BRAND] in _HEIF and not is_named_so:
        return f", but {_HEIF[start[_BRAND]]}, whatever its name; {_HEIF_TODO}"
    words = (text for magic, text in _BEGINNINGS.items() if start.lstrip().startswith(magic))
    return next((f", but {text}" for text in words), "")
