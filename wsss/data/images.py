"""Reading pictures and reading and writing label PNGs."""

from __future__ import annotations

from functools import cache
from os import PathLike
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.ImageFile import ImageFile
from PIL.PngImagePlugin import PngInfo

from wsss.data.index import ImageRecord
from wsss.errors import UserError, listed

HEIF_SUFFIXES = (".heic", ".heif")
"""Suffixes of phones' pictures, which the package pillow-heif reads, where it is installed."""

IMAGE_SUFFIXES = (*(".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"), *HEIF_SUFFIXES)
"""Suffixes (lower case) of the files taken for pictures in a folder."""

FORMATS: tuple[str, ...] = ("BMP", "JPEG", "PNG", "TIFF", "WEBP")
"""What a picture can be, whatever its name: some of the others that Pillow reads start programs."""

IGNORE = 255
"""Label of pixels that are not sure or do not count; 0 is background, the rest are classes."""

_EXIF_ORIENTATION = 0x0112
_TAIL_BYTES = 4096
_END_MARKS = {"JPEG": b"\xff\xd9", "PNG": b"IEND\xaeB`\x82"}
_WIDE_MODES = {"I", "F", "I;16", "I;16B", "I;16L", "I;16N"}
_DECODING_ERRORS = (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError)


@cache
def _read_heif() -> None:
    """Let Pillow read HEIC and HEIF."""
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        raise UserError(
            "this picture is in HEIC or HEIF",
            expected="the package pillow-heif, which reads them",
            fix="install it:  pip install pillow-heif",
        ) from None
    register_heif_opener()


def _open(path: str | PathLike[str]) -> ImageFile:
    formats = FORMATS
    if Path(path).suffix.lower() in HEIF_SUFFIXES:
        _read_heif()
        formats = (*FORMATS, "HEIF")
    return Image.open(path, formats=formats)


def _turned(image: Image.Image) -> bool:
    """Say whether the file asks to be shown turned or mirrored (as phones' photographs do)."""
    if image.format == "PNG" and "exif" not in image.info:
        return False  # Pillow would decode the whole file to look for one behind the pixels
    return image.getexif().get(_EXIF_ORIENTATION, 1) in range(2, 9)


def _unreadable(path: str | PathLike[str], error: BaseException) -> UserError:
    if isinstance(error, FileNotFoundError):
        return UserError("this picture does not exist", where=path)
    reason = str(error) or type(error).__name__
    if isinstance(error, UnidentifiedImageError):
        reason = f"it is none of {', '.join(FORMATS)}"
    return UserError(
        f"cannot read this picture: {reason}",
        where=path,
        expected="a complete JPEG, PNG, TIFF, WebP or BMP file",
        fix="fetch the file again or leave it out",
    )


def upright_rgb(
    image: Image.Image, *, where: str | PathLike[str] | None = None
) -> NDArray[np.uint8]:
    """Return an open picture as `read_image` does: (H, W, 3) uint8 RGB, upright.

    Args:
        image: The picture.
        where: Its file, for the message.

    Raises:
        UserError: It holds more than 8 bits a channel.
    """
    if image.mode in _WIDE_MODES:
        raise UserError(
            f"this picture has mode {image.mode!r}, more than 8 bits a channel",
            where=where,
            fix="convert it to 8 bits; how to map the range is for you to say",
        )
    upright = ImageOps.exif_transpose(image) if _turned(image) else image
    return np.array(upright.convert("RGB"))


def read_image(path: str | PathLike[str]) -> NDArray[np.uint8]:
    """Return a picture as (H, W, 3) uint8 RGB, upright: an EXIF orientation is applied.

    Grey pictures get three equal channels; transparency is dropped.

    Raises:
        UserError: The file is missing, damaged, or holds more than 8 bits a channel.
    """
    try:
        with _open(path) as image:
            return upright_rgb(image, where=path)
    except _DECODING_ERRORS as error:
        raise _unreadable(path, error) from None


def read_sized_image(root: Path, record: ImageRecord) -> NDArray[np.uint8]:
    """Return the picture (H, W, 3) uint8; it must still have the size the index states.

    Raises:
        UserError: It is unreadable or has another size.
    """
    image = read_image(root / record.path)
    if image.shape[:2] != (record.height, record.width):
        raise UserError(
            f"this picture is {image.shape[1]} x {image.shape[0]} px",
            where=root / record.path,
            expected=f"{record.width} x {record.height} px, as the index says",
            fix="let the index stage run again",
        )
    return image


def probe_image(path: str | PathLike[str]) -> tuple[int, int]:
    """Return (width, height) of the upright picture from its header, checking it is complete.

    JPEG and PNG files are not decoded: their end mark must be there. Where it is not, and for
    other formats, the picture is decoded to find out.

    Raises:
        UserError: As `read_image`.
    """
    try:
        with _open(path) as image:
            if image.mode in _WIDE_MODES:
                raise UserError(
                    f"this picture has mode {image.mode!r}, more than 8 bits a channel", where=path
                )
            width, height = image.size
            if _turned(image) and image.getexif()[_EXIF_ORIENTATION] >= 5:
                width, height = height, width
            mark = _END_MARKS.get(image.format or "")
            if mark is None or mark not in _tail(Path(path)):
                image.load()
            return width, height
    except _DECODING_ERRORS as error:
        raise _unreadable(path, error) from None


def _tail(path: Path) -> bytes:
    with open(path, "rb") as handle:
        handle.seek(0, 2)
        handle.seek(max(0, handle.tell() - _TAIL_BYTES))
        return handle.read()


def read_label(path: str | PathLike[str]) -> NDArray[np.uint8]:
    """Return a label picture as (H, W) uint8: palette positions or grey values, unscaled.

    One in colour is read by VOC's colour map.

    Raises:
        UserError: The file is missing, damaged, has a colour that is not in VOC's map, or another
            depth than 8 bits.
    """
    try:
        with _open(path) as image:
            # Pillow stretches 2- and 4-bit grey to 0..255, which would invent labels.
            raw_mode = image.tile[0][3] if image.tile else None
            stretched = raw_mode in {"L;2", "L;4"}
            if image.mode == "RGB" and raw_mode == "RGB":
                return _labels_of_colours(np.array(image), path)
            if image.mode not in {"P", "L", "1"} or stretched:
                depth = " with fewer than 8 bits" if stretched else ""
                raise UserError(
                    f"a label picture of mode {image.mode!r}{depth}",
                    where=path,
                    expected="8-bit palette or grey PNG: 0 background, 1.. classes, 255 ignore",
                    fix="save the labels themselves, not their colours",
                )
            return np.array(image, dtype=np.uint8)
    except _DECODING_ERRORS as error:
        raise _unreadable(path, error) from None


def _labels_of_colours(picture: NDArray[np.uint8], path: str | PathLike[str]) -> NDArray[np.uint8]:
    colours, which = np.unique(picture.reshape(-1, 3), axis=0, return_inverse=True)
    labels = voc_labels(colours)
    unknown = colours[labels < 0]
    if len(unknown):
        raise UserError(
            f"a label picture in colour, with colours that are not in VOC's colour map: "
            f"{listed((tuple(colour.tolist()) for colour in unknown), 5)}",
            where=path,
            expected="8-bit palette or grey PNG: 0 background, 1.. classes, 255 ignore",
            fix="save the labels themselves, not their colours; or VOC's colours, unblurred",
        )
    return labels.astype(np.uint8)[which].reshape(picture.shape[:2])


def palette_labels(path: str | PathLike[str]) -> NDArray[np.int16] | None:
    """Return what the palette of a label picture stands for, from its header.

    Returns:
        (256,) int16: for each position the label of its colour in VOC's colour map, -1 where the
        map does not have it; None: the picture has no palette, or cannot be read.
    """
    try:
        with _open(path) as image:
            colours = image.getpalette("RGB") if image.mode == "P" else None
    except _DECODING_ERRORS:
        return None
    if colours is None:
        return None
    found = np.full(256, -1, dtype=np.int16)
    known = voc_labels(np.asarray(colours, dtype=np.uint8).reshape(-1, 3))
    found[: len(known)] = known
    return found


def voc_labels(colours: NDArray[np.uint8]) -> NDArray[np.int16]:
    """Return the labels (N,) int16 of (N, 3) uint8 RGB colours in VOC's colour map; -1: none."""
    weights = np.array([1 << 16, 1 << 8, 1])
    codes = voc_palette() @ weights
    order = np.argsort(codes)
    wanted = colours.astype(np.int64) @ weights
    place = np.minimum(np.searchsorted(codes[order], wanted), 255)
    return np.where(codes[order][place] == wanted, order[place], -1).astype(np.int16)


@cache
def _palette_bytes() -> bytes:
    # The devkit's rule: the label's bits, low to high, are dealt to R, G, B from the top down.
    palette = np.zeros((256, 3), dtype=np.uint8)
    labels = np.arange(256)
    for place in range(8):
        for channel in range(3):
            bit = (labels >> (3 * place + channel)) & 1
            palette[:, channel] |= (bit << (7 - place)).astype(np.uint8)
    return palette.tobytes()


def voc_palette() -> NDArray[np.uint8]:
    """Return the PASCAL VOC colour map, (256, 3) uint8: the RGB colour of each label."""
    return np.frombuffer(_palette_bytes(), dtype=np.uint8).reshape(256, 3).copy()


def written_by(software: str) -> PngInfo:
    """Return what names a program in a PNG file, for `software_of`."""
    info = PngInfo()
    info.add_text("Software", software)
    return info


def software_of(path: str | PathLike[str]) -> str | None:
    """Return the program that a PNG file names in its header; None: it names none, or is none."""
    try:
        with Image.open(path, formats=("PNG",)) as image:
            found = image.info.get("Software")
    except _DECODING_ERRORS:
        return None
    return found if isinstance(found, str) else None


def write_label(
    path: str | PathLike[str] | IO[bytes],
    label: NDArray[np.uint8],
    info: PngInfo | None = None,
) -> None:
    """Write (H, W) uint8 labels as a PNG with the VOC palette; same labels, same bytes.

    This writes in place: the caller wraps it in `atomic_file` or `atomic_directory`.
    """
    if label.ndim != 2 or label.dtype != np.uint8:
        raise ValueError(f"labels must be (H, W) uint8, not {label.shape} {label.dtype}")
    image = Image.fromarray(label)  # mode L; attaching a palette turns it into P
    image.putpalette(_palette_bytes())
    image.save(path, format="PNG", compress_level=6, pnginfo=info)
