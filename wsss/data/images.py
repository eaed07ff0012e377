"""Reading pictures and reading and writing label PNGs."""

from __future__ import annotations

import shlex
import stat
from functools import cache
from os import PathLike
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.ImageFile import ImageFile
from PIL.PngImagePlugin import PngInfo
from PIL.TiffImagePlugin import TiffImageFile

from wsss.data.index import ImageRecord
from wsss.data.jpeg import missing_part
from wsss.data.other_files import what_it_is
from wsss.errors import UserError, listed
from wsss.files.marks import MARK

HEIF_SUFFIXES = (".heic", ".heif")
"""Suffixes of phones' pictures, which the package pillow-heif reads, where it is installed."""

IMAGE_SUFFIXES = (*(".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"), *HEIF_SUFFIXES)
"""Suffixes (lower case) of the files taken for pictures in a folder."""

FORMATS: tuple[str, ...] = ("BMP", "JPEG", "PNG", "TIFF", "WEBP")
"""What a picture can be, whatever its name: some of the others that Pillow reads start programs."""

IGNORE = 255
"""Label of pixels that are not sure or do not count; 0 is background, the rest are classes."""

_LABEL_PICTURE = "8-bit palette or grey PNG: 0 background, 1.. classes, 255 ignore"
_AGAIN = "make it again from the current index"
_EXIF_ORIENTATION = 0x0112
_TIFF_BITS = 258
MOST_MEGAPIXELS = 178.0
"""Pictures of more pixels are not opened; Pillow draws the line at the same place."""
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


def _open(path: str | PathLike[str], most_megapixels: float = MOST_MEGAPIXELS) -> ImageFile:
    formats = FORMATS
    if not stat.S_ISREG(Path(path).stat().st_mode):
        # A pipe would be waited for, a device never end.
        raise UserError("this is no file, but a folder, a pipe or a device", where=path)
    if Path(path).suffix.lower() in HEIF_SUFFIXES:
        _read_heif()
        formats = (*FORMATS, "HEIF")
    limit = f"at most {most_megapixels:g} megapixels (index.max_megapixels)"
    fix = "make it smaller, or cut it into several"
    if most_megapixels < MOST_MEGAPIXELS:
        fix += f"; or raise that setting, up to {MOST_MEGAPIXELS:g}"
    try:
        image = Image.open(path, formats=formats)
    except Image.DecompressionBombError as error:
        raise UserError(
            f"this picture is too large: {error}", where=path, expected=limit, fix=fix
        ) from None
    width, height = image.size
    if width * height > most_megapixels * 1e6:
        image.close()
        raise UserError(
            f"this picture has {width * height / 1e6:.3g} megapixels ({width} x {height})",
            where=path,
            expected=limit,
            fix=fix,
        )
    return image


def _is_wide(image: Image.Image) -> bool:
    """Say whether a channel has more than 8 bits, of which Pillow would keep the upper 8."""
    if image.mode.startswith(("I", "F")):
        return True
    if isinstance(image, TiffImageFile):
        bits = image.tag_v2.get(_TIFF_BITS, 1)
        return bool(max(bits if isinstance(bits, tuple) else (bits,)) > 8)
    tiles = getattr(image, "tile", ())  # none once it is loaded
    return image.format == "PNG" and any(";16" in str(tile[3]) for tile in tiles)


def _require_8_bits(image: Image.Image, where: str | PathLike[str] | None) -> None:
    if _is_wide(image):
        raise UserError(
            f"this picture has mode {image.mode!r}, more than 8 bits a channel"
            if image.mode.startswith(("I", "F"))
            else "this picture has more than 8 bits a channel",
            where=where,
            fix="convert it to 8 bits; how to map the range is for you to say",
        )


def _turned(image: Image.Image) -> bool:
    """Say whether the file asks to be shown turned or mirrored (as phones' photographs do)."""
    if isinstance(image, TiffImageFile):
        image.load()  # which turns it, in the versions of Pillow that do
    if image.format == "PNG" and "exif" not in image.info:
        return False  # Pillow would decode the whole file to look for one behind the pixels
    return image.getexif().get(_EXIF_ORIENTATION, 1) in range(2, 9)


def _unreadable(path: str | PathLike[str], error: BaseException) -> UserError:
    if isinstance(error, FileNotFoundError):
        link = " (it is a link to a file that is not there)" if Path(path).is_symlink() else ""
        return UserError(f"this picture does not exist{link}", where=path)
    reason = str(error) or type(error).__name__
    if isinstance(error, UnidentifiedImageError):
        reason = f"it is none of {', '.join(FORMATS)}{what_it_is(path)}"
    return UserError(
        f"cannot read this picture: {reason}",
        where=path,
        expected="a complete JPEG, PNG, TIFF, WebP or BMP file",
        fix="fetch the file again or leave it out",
    )


def _unreadable_label(path: str | PathLike[str], error: BaseException) -> UserError:
    """Return the message for a label picture: a stage's is made again, anybody else's restored."""
    found = _unreadable(path, error)
    folder = Path(path).parent
    if not (folder / MARK).exists():
        return found
    return UserError(
        found.found,
        where=path,
        expected="a label picture as the stage that makes this folder left it",
        fix="delete the folder and start again, which runs its stage again:  "
        f"rm -r {shlex.quote(str(folder))}",
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
    _require_8_bits(image, where)
    upright = ImageOps.exif_transpose(image) if _turned(image) else image
    if upright.mode == "P" and isinstance(upright.info.get("transparency"), bytes):
        # The same colours; straight to RGB, Pillow warns that the transparency is lost.
        upright = upright.convert("RGBA")
    return np.array(upright.convert("RGB"))


def read_image(path: str | PathLike[str], size: tuple[int, int] | None = None) -> NDArray[np.uint8]:
    """Return a picture as (H, W, 3) uint8 RGB, upright: an EXIF orientation is applied.

    Grey pictures get three equal channels; transparency is dropped.

    Raises:
        UserError: The file is missing, damaged, holds more than 8 bits a channel, or is no longer
            of `size`, the (width, height) that the index states.
    """
    try:
        with _open(path) as image:
            pixels = upright_rgb(image, where=path)
    except _DECODING_ERRORS as error:
        raise _unreadable(path, error) from None
    if size is not None and pixels.shape[1::-1] != size:
        raise UserError(
            f"this picture is {pixels.shape[1]} x {pixels.shape[0]} px",
            where=path,
            expected=f"{size[0]} x {size[1]} px, as the index says",
            fix="put the picture back, or start the run again, which makes its index anew",
        )
    return pixels


def read_sized_image(root: Path, record: ImageRecord) -> NDArray[np.uint8]:
    """Return the picture (H, W, 3) uint8 of an index's record; see `read_image`."""
    return read_image(root / record.path, (record.width, record.height))


def probe_image(
    path: str | PathLike[str], most_megapixels: float = MOST_MEGAPIXELS
) -> tuple[int, int]:
    """Return (width, height) of the upright picture, checking that all of it is there.

    `wsss.data.jpeg` says so of JPEG; other formats are decoded to find out.

    Raises:
        UserError: As `read_image`; or it has more pixels than that.
    """
    try:
        with _open(path, most_megapixels) as image:
            _require_8_bits(image, path)
            turned = _turned(image) and image.getexif()[_EXIF_ORIENTATION] >= 5
            if image.format in ("JPEG", "MPO"):  # MPO: several in one file, of which this is first
                missing = missing_part(Path(path).read_bytes())
                if missing is not None:
                    raise OSError(missing)
            else:
                image.load()
            width, height = image.size
            return (height, width) if turned else (width, height)
    except _DECODING_ERRORS as error:
        raise _unreadable(path, error) from None


def read_label(
    path: str | PathLike[str], most_megapixels: float = MOST_MEGAPIXELS
) -> NDArray[np.uint8]:
    """Return a label picture as (H, W) uint8: palette positions or grey values, unscaled.

    One in colour is read by VOC's colour map.

    Raises:
        UserError: The file is missing, damaged, has a colour that is not in VOC's map, or another
            depth than 8 bits.
    """
    try:
        with _open(path, most_megapixels) as image:
            if image.format in ("JPEG", "MPO"):
                raise UserError(
                    "this label picture is a JPEG, whatever its name: what it holds is near the "
                    "labels, not the labels",
                    where=path,
                    expected=_LABEL_PICTURE,
                    fix="save it anew as PNG where it was drawn",
                )
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
                    expected=_LABEL_PICTURE,
                    fix="save the labels themselves, not their colours",
                )
            return np.array(image, dtype=np.uint8)
    except _DECODING_ERRORS as error:
        raise _unreadable_label(path, error) from None


def read_class_label(
    path: str | PathLike[str], size: tuple[int, int], n_labels: int, *, fix: str = _AGAIN
) -> NDArray[np.uint8]:
    """Return the label map of an image, (H, W) uint8: 0..n_labels - 1 and 255, not sure.

    Args:
        path: The label picture.
        size: (H, W) of the image.
        n_labels: Classes and background.
        fix: What to do where it does not fit.

    Raises:
        UserError: See `read_label`; or it is of another size, or has a label of no class.
    """
    label = read_label(path)
    if label.shape != size:
        raise UserError(
            f"this label map is {label.shape[1]} x {label.shape[0]} px",
            where=path,
            expected=f"the image's {size[1]} x {size[0]} px",
            fix=fix,
        )
    known = label[label != IGNORE]
    if known.size and int(known.max()) >= n_labels:
        raise UserError(
            f"this label map holds the label {known.max()}, which is no class's",
            where=path,
            expected=f"0..{n_labels - 1}, or {IGNORE}",
            fix=fix,
        )
    return label


def _labels_of_colours(picture: NDArray[np.uint8], path: str | PathLike[str]) -> NDArray[np.uint8]:
    colours, which = np.unique(picture.reshape(-1, 3), axis=0, return_inverse=True)
    labels = voc_labels(colours)
    unknown = colours[labels < 0]
    if len(unknown):
        raise UserError(
            f"a label picture in colour, with colours that are not in VOC's colour map: "
            f"{listed((tuple(colour.tolist()) for colour in unknown), 5)}",
            where=path,
            expected=_LABEL_PICTURE,
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


def write_named(folder: Path, name: str, label: NDArray[np.uint8]) -> None:
    """Write an image's label PNG into a folder; the image's name may have folders of its own."""
    target = folder / f"{name}.png"
    target.parent.mkdir(parents=True, exist_ok=True)
    write_label(target, label)
