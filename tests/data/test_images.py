from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import wsss
from wsss.data.images import probe_image, read_image, read_label, voc_palette, write_label
from wsss.errors import UserError


def _picture(height: int = 20, width: int = 30) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_palette_has_the_devkits_published_colours() -> None:
    palette = voc_palette()
    published = {
        0: (0, 0, 0),
        1: (128, 0, 0),
        2: (0, 128, 0),
        7: (128, 128, 128),
        15: (192, 128, 128),
        20: (0, 64, 128),
        255: (224, 224, 192),
    }
    for label, rgb in published.items():
        assert tuple(palette[label]) == rgb
    assert palette.shape == (256, 3) and palette.dtype == np.uint8
    assert len({tuple(row) for row in palette}) == 256


def test_label_survives_writing_and_bytes_repeat(tmp_path: Path) -> None:
    label = np.arange(256, dtype=np.uint8).reshape(8, 32)
    write_label(tmp_path / "a.png", label)
    write_label(tmp_path / "b.png", label)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    np.testing.assert_array_equal(read_label(tmp_path / "a.png"), label)
    with Image.open(tmp_path / "a.png") as image:
        assert image.mode == "P"
        shown = np.array(image.convert("RGB"))
    np.testing.assert_array_equal(shown, voc_palette()[label])


def test_label_of_few_classes_keeps_the_whole_palette(tmp_path: Path) -> None:
    label = np.array([[0, 1], [2, 255]], dtype=np.uint8)
    write_label(tmp_path / "a.png", label)
    np.testing.assert_array_equal(read_label(tmp_path / "a.png"), label)


@pytest.mark.parametrize("bad", [np.zeros((2, 2), np.int64), np.zeros((2, 2, 3), np.uint8)])
def test_write_label_refuses_other_arrays(tmp_path: Path, bad: np.ndarray) -> None:
    with pytest.raises(ValueError, match="uint8"):
        write_label(tmp_path / "a.png", bad)


def test_grey_labels_are_read_unscaled_and_colours_refused(tmp_path: Path) -> None:
    label = np.array([[0, 3], [20, 255]], dtype=np.uint8)
    Image.fromarray(label).save(tmp_path / "grey.png")
    np.testing.assert_array_equal(read_label(tmp_path / "grey.png"), label)
    Image.fromarray(_picture()).save(tmp_path / "rgb.png")
    with pytest.raises(UserError, match="in colour"):
        read_label(tmp_path / "rgb.png")


def test_four_bit_grey_labels_are_refused_since_pillow_would_stretch_them(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 1], [2, 3]], np.uint8)).save(tmp_path / "a.png", bits=4)
    data = bytearray((tmp_path / "a.png").read_bytes())
    if data[24] != 4:  # Pillow writes grey with 8 bits: make a 4-bit file by hand
        import struct
        import zlib

        def chunk(kind: bytes, body: bytes) -> bytes:
            check = zlib.crc32(kind + body)
            return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", check)

        header = struct.pack(">IIBBBBB", 2, 2, 4, 0, 0, 0, 0)
        rows = zlib.compress(bytes([0, 0x01, 0, 0x23]))
        (tmp_path / "a.png").write_bytes(
            b"\x89PNG\r\n\x1a\n"
            + chunk(b"IHDR", header)
            + chunk(b"IDAT", rows)
            + chunk(b"IEND", b"")
        )
    with pytest.raises(UserError, match="fewer than 8 bits"):
        read_label(tmp_path / "a.png")


def test_read_image_gives_rgb(tmp_path: Path) -> None:
    picture = _picture()
    Image.fromarray(picture).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), picture)
    grey = picture[..., 0].copy()
    Image.fromarray(grey).save(tmp_path / "grey.png")
    np.testing.assert_array_equal(read_image(tmp_path / "grey.png"), np.stack([grey] * 3, -1))


@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_exif_orientation_turns_the_picture_and_its_size(tmp_path: Path, suffix: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned by 90 degrees clockwise
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(_picture(20, 30)).save(path, exif=exif)
    with Image.open(path) as image:
        stored = np.array(image)
    np.testing.assert_array_equal(read_image(path), np.rot90(stored, -1))
    assert probe_image(path) == (20, 30)


@pytest.mark.parametrize("suffix", ["jpg", "png", "bmp", "webp"])
def test_probe_gives_the_size_and_finds_truncation(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(_picture(64, 96)).save(path)
    assert probe_image(path) == (96, 64)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 2 // 3])
    with pytest.raises(UserError, match="cannot read"):
        probe_image(path)
    with pytest.raises(UserError, match="cannot read"):
        read_image(path)


def test_probe_accepts_what_decodes_despite_bytes_behind_the_end(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    Image.fromarray(_picture(64, 96)).save(path)
    path.write_bytes(path.read_bytes() + b"\0" * 10_000)
    assert probe_image(path) == (96, 64)


def test_unusable_pictures_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        read_image(tmp_path / "none.jpg")
    (tmp_path / "text.jpg").write_text("not a picture")
    with pytest.raises(UserError, match=r"text\.jpg"):
        read_image(tmp_path / "text.jpg")
    deep = np.full((4, 4), 40_000, np.uint16)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    for reader in (read_image, probe_image, read_label):
        with pytest.raises(UserError):
            reader(tmp_path / "deep.png")


POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n%%EOF\n"


@pytest.mark.parametrize("read", [read_image, probe_image, read_label])
def test_no_other_formats_than_those_named_are_read(
    read: Callable[[Path], object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def started(*arguments: object, **how: object) -> None:
        raise AssertionError(f"a program was started: {arguments}")

    monkeypatch.setattr("subprocess.check_call", started)
    monkeypatch.setattr("subprocess.Popen", started)
    contents = {"EPS": POSTSCRIPT}
    for kind in ("GIF", "PPM", "TGA", "PCX", "ICO", "DDS"):
        other = io.BytesIO()
        Image.new("L", (16, 16)).convert("RGBA" if kind == "DDS" else "L").save(other, kind)
        contents[kind] = other.getvalue()
    for kind, content in contents.items():
        path = tmp_path / f"{kind}.png"
        path.write_bytes(content)
        with pytest.raises(UserError, match="none of BMP, JPEG, PNG, TIFF, WEBP"):
            read(path)


def test_pictures_are_opened_with_a_list_of_formats_everywhere() -> None:
    for path in sorted((Path(wsss.__file__).parent).rglob("*.py")):
        for line in path.read_text().splitlines():
            assert "Image.open(" not in line or "formats=" in line, f"{path}: {line}"


def test_a_transparent_palette_is_read_without_a_word(tmp_path):
    colours = np.random.default_rng(0).integers(0, 256, (6, 3), dtype=np.uint8)
    places = np.arange(24, dtype=np.uint8).reshape(4, 6) % 6
    image = Image.fromarray(places)
    image.putpalette(colours.tobytes())
    image.save(tmp_path / "a.png", transparency=bytes([0, 50, 255, 7, 9, 200]))
    assert np.array_equal(read_image(tmp_path / "a.png"), colours[places])
