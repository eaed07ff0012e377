"""Pictures that would be read wrongly without a word: cut, 16 bits, turned, huge, no files."""

from __future__ import annotations

import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter

from wsss.commands.init import recognised
from wsss.data.build import build_index, build_masks
from wsss.data.formats.class_folders import ClassFoldersSettings
from wsss.data.formats.coco_json import CocoJsonSettings
from wsss.data.formats.folder import FolderSettings
from wsss.data.formats.table import TableSettings
from wsss.data.formats.voc import VocSettings
from wsss.data.images import probe_image, read_image, read_label, write_label
from wsss.data.jpeg import missing_part
from wsss.errors import UserError
from wsss.files.marks import write_mark


def photograph(height: int = 150, width: int = 200) -> Image.Image:
    noise = np.random.default_rng(0).normal(size=(height, width, 3))
    smooth = gaussian_filter(noise, (3, 3, 0))
    scaled = (smooth - smooth.min()) / (smooth.max() - smooth.min())
    return Image.fromarray((255 * scaled).astype(np.uint8))


def jpeg(picture: Image.Image, **options: object) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, "JPEG", **options)
    return stream.getvalue()


def without(data: bytes, start: float, end: float) -> bytes:
    """Cut bytes out; what is left ends as before."""
    return data[: int(start * len(data))] + data[int(end * len(data)) :]


KINDS = {
    "baseline": {},
    "progressive": {"progressive": True},
    "restarts": {"restart_marker_rows": 1},
    "optimised": {"optimize": True, "quality": 95, "subsampling": 0},
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_a_whole_jpeg_is_whole(tmp_path: Path, kind: str, mode: str) -> None:
    data = jpeg(photograph().convert(mode), **KINDS[kind])
    assert missing_part(data) is None
    (tmp_path / "a.jpg").write_bytes(data + b"what some cameras append")
    assert probe_image(tmp_path / "a.jpg") == (200, 150)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("cut", [(0.2, 0.5), (0.5, 0.55), (0.6, 0.95), (0.93, 0.96)])
def test_a_jpeg_cut_in_the_middle_is_refused(
    tmp_path: Path, kind: str, mode: str, cut: tuple[float, float]
) -> None:
    data = without(jpeg(photograph().convert(mode), **KINDS[kind]), *cut)
    assert data.endswith(b"\xff\xd9")
    (tmp_path / "a.jpg").write_bytes(data)
    with pytest.raises(
        UserError, match=r"cannot read this picture: .*(missing|not whole)(.|\n)*a\.j"
    ):
        probe_image(tmp_path / "a.jpg")


def test_a_picture_that_ends_grey_is_whole() -> None:
    # What a decoder shows where data are missing, but here it is the picture.
    pixels = np.array(photograph())
    pixels[100:] = 128
    for options in KINDS.values():
        assert missing_part(jpeg(Image.fromarray(pixels), **options)) is None
    whole = jpeg(Image.new("RGB", (64, 64), (128, 128, 128)))
    assert missing_part(whole) is None


def test_a_jpeg_without_an_end_is_decoded(tmp_path: Path) -> None:
    data = jpeg(photograph())
    (tmp_path / "a.jpg").write_bytes(data[: len(data) // 2])
    with pytest.raises(UserError, match="truncated"):
        probe_image(tmp_path / "a.jpg")


@pytest.mark.parametrize("seed", range(60))
def test_damage_anywhere_is_an_error_or_nothing(tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    data = bytearray(jpeg(photograph(40, 50), progressive=bool(seed % 2)))
    for _ in range(3):
        data[int(rng.integers(len(data)))] = int(rng.integers(256))
    (tmp_path / "a.jpg").write_bytes(data)
    try:
        probe_image(tmp_path / "a.jpg")
    except UserError as error:
        assert "a.jpg" in str(error)


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width: int, height: int, colour: int, bits: int, rows: bytes, pieces: int = 1) -> bytes:
    packed = zlib.compress(rows)
    step = -(-len(packed) // pieces)
    parts = [packed[start : start + step] for start in range(0, len(packed), step)]
    head = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    body = b"".join(chunk(b"IDAT", part) for part in parts)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + body + chunk(b"IEND", b"")


def noise_rows(height: int, row_bytes: int) -> bytes:
    rng = np.random.default_rng(0)
    rows = (rng.integers(0, 256, row_bytes, dtype=np.uint8).tobytes() for _ in range(height))
    return b"".join(b"\0" + row for row in rows)


def test_a_png_cut_in_the_middle_is_refused(tmp_path: Path) -> None:
    whole = png(40, 30, 2, 8, noise_rows(30, 120), pieces=3)
    (tmp_path / "a.png").write_bytes(whole)
    assert probe_image(tmp_path / "a.png") == (40, 30)
    first = whole.index(b"IDAT") - 4
    second = whole.index(b"IDAT", first + 8) - 4
    third = whole.index(b"IDAT", second + 8) - 4
    for damaged in (
        without(whole, 0.3, 0.6),
        whole[:second] + whole[third:],  # a chunk is gone, the others are right
        whole[:first] + whole[whole.index(b"IEND") - 4 :],
    ):
        assert damaged.endswith(b"IEND\xaeB`\x82")
        (tmp_path / "a.png").write_bytes(damaged)
        with pytest.raises(UserError, match="cannot read this picture"):
            probe_image(tmp_path / "a.png")


@pytest.mark.parametrize(("colour", "channels"), [(0, 1), (2, 3), (4, 2), (6, 4)])
def test_pngs_of_16_bits_are_refused(tmp_path: Path, colour: int, channels: int) -> None:
    (tmp_path / "a.png").write_bytes(png(5, 4, colour, 16, noise_rows(4, 10 * channels)))
    for read in (probe_image, read_image):
        with pytest.raises(UserError, match=r"more than 8 bits a channel(.|\n)*a\.png"):
            read(tmp_path / "a.png")
    with pytest.raises(UserError):
        read_label(tmp_path / "a.png")


def tiff16(channels: int) -> bytes:
    """A little-endian TIFF of 5 x 4 pixels, 16 bits a channel, by hand."""
    pixels = np.random.default_rng(0).integers(0, 4096, (4, 5, channels)).astype("<u2").tobytes()
    tags = [
        (256, 3, 1, 5),
        (257, 3, 1, 4),
        (258, 3, channels, 16 if channels == 1 else 200),
        (259, 3, 1, 1),
        (262, 3, 1, 1 if channels == 1 else 2),
        (273, 4, 1, 220),
        (277, 3, 1, channels),
        (278, 3, 1, 4),
        (279, 4, 1, len(pixels)),
    ]
    table = struct.pack("<H", len(tags))
    table += b"".join(struct.pack("<HHII", *tag) for tag in tags) + struct.pack("<I", 0)
    data = b"II*\0" + struct.pack("<I", 8) + table
    return data.ljust(200, b"\0") + struct.pack("<HHH", 16, 16, 16).ljust(20, b"\0") + pixels


@pytest.mark.parametrize("channels", [1, 3])
def test_tiffs_of_16_bits_are_refused(tmp_path: Path, channels: int) -> None:
    (tmp_path / "a.tif").write_bytes(tiff16(channels))
    for read in (probe_image, read_image):
        with pytest.raises(UserError, match="more than 8 bits a channel"):
            read(tmp_path / "a.tif")


def test_bmps_of_16_bits_a_pixel_are_read(tmp_path: Path) -> None:
    # 5 bits a channel; the name of its mode has a 16 in it, too.
    head = struct.pack("<IiiHHIIiiII", 40, 4, 2, 1, 16, 0, 16, 0, 0, 0, 0)
    pixels = struct.pack("<8H", *[0x7C00] * 8)
    data = b"BM" + struct.pack("<IHHI", 14 + 40 + 16, 0, 0, 54) + head + pixels
    (tmp_path / "a.bmp").write_bytes(data)
    assert probe_image(tmp_path / "a.bmp") == (4, 2)
    assert (read_image(tmp_path / "a.bmp") == [255, 0, 0]).all()


@pytest.mark.parametrize("suffix", ["tif", "jpg", "png", "webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_turned_pictures_have_the_size_and_the_pixels_of_upright_ones(
    tmp_path: Path, suffix: str, orientation: int
) -> None:
    stored = np.zeros((16, 32, 3), np.uint8)
    stored[:8, :8] = 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(stored).save(path, exif=exif)
    upright = {
        1: stored,
        2: stored[:, ::-1],
        3: stored[::-1, ::-1],
        4: stored[::-1],
        5: stored.transpose(1, 0, 2),
        6: stored[::-1].transpose(1, 0, 2),
        7: stored[::-1, ::-1].transpose(1, 0, 2),
        8: stored[:, ::-1].transpose(1, 0, 2),
    }[orientation]
    read = read_image(path)
    assert probe_image(path) == read.shape[1::-1] == upright.shape[1::-1]
    np.testing.assert_array_equal(read > 127, upright > 127)


def test_large_pictures_are_refused_by_the_setting(tmp_path: Path) -> None:
    Image.new("RGB", (300, 200)).save(tmp_path / "a.png")
    assert probe_image(tmp_path / "a.png", 0.06) == (300, 200)
    with pytest.raises(UserError) as caught:
        probe_image(tmp_path / "a.png", 0.05)
    for words in ("0.06 megapixels (300 x 200)", "at most 0.05", "index.max_megapixels", "a.png"):
        assert words in str(caught.value)


def test_a_bomb_is_refused_before_it_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png(60000, 60000, 0, 8, bytes(100)))
    for read in (probe_image, read_image, read_label):
        with pytest.raises(UserError, match=r"too large(.|\n)*178 megapixels \(index\.max_megapi"):
            read(tmp_path / "a.png")


# ----- a data folder with such things in it


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "images").mkdir()
    Image.new("RGB", (8, 6)).save(tmp_path / "images" / "a.png")
    (tmp_path / "labels.csv").write_text("image,tags\na.png,dog\nb.jpg,dog\n")
    return tmp_path


def refusal(root: Path, settings: FolderSettings | None = None) -> str:
    with pytest.raises(UserError) as caught:
        build_index(settings or FolderSettings(), root)
    return caught.value.found


@pytest.mark.setting("index.max_megapixels")
def test_the_setting_reaches_the_index_and_the_masks(root: Path) -> None:
    Image.new("RGB", (80, 60)).save(root / "images" / "b.jpg")
    assert "0.0048 megapixels" in refusal(root, FolderSettings(max_megapixels=0.004))
    index = build_index(FolderSettings(max_megapixels=0.005), root)
    (root / "masks").mkdir()
    write_label(root / "masks" / "a.png", np.ones((60, 80), np.uint8))
    with pytest.raises(UserError, match="megapixels"):
        build_masks(FolderSettings(max_megapixels=0.004), root, index)


def test_pipes_are_not_waited_for(root: Path) -> None:
    os.mkfifo(root / "images" / "b.jpg")
    assert "images/b.jpg: this is no file, but a folder, a pipe or a device" in refusal(root)
    (root / "masks").mkdir()
    os.mkfifo(root / "masks" / "a.png")
    with pytest.raises(UserError, match="no file, but a folder, a pipe"):
        read_label(root / "masks" / "a.png")


def test_pipes_in_the_place_of_lists_are_not_waited_for(tmp_path: Path) -> None:
    for name in ("labels.csv", "list.jsonl", "annotations.json"):
        os.mkfifo(tmp_path / name)
    (tmp_path / "images").mkdir()
    Image.new("RGB", (8, 6)).save(tmp_path / "images" / "a.png")
    with pytest.raises(UserError):
        recognised(tmp_path)
    for settings in (
        TableSettings(file="labels.csv"),
        TableSettings(file="list.jsonl"),
        CocoJsonSettings(),
        FolderSettings(),
    ):
        with pytest.raises(UserError):
            build_index(settings, tmp_path)
    voc = tmp_path / "voc"
    for folder in ("JPEGImages", "ImageSets/Segmentation", "Annotations"):
        (voc / folder).mkdir(parents=True)
    Image.new("RGB", (8, 6)).save(voc / "JPEGImages" / "a.jpg")
    (voc / "ImageSets" / "Segmentation" / "train.txt").write_text("a\n")
    os.mkfifo(voc / "Annotations" / "a.xml")
    os.mkfifo(voc / "cls_labels.npy")
    with pytest.raises(UserError, match=r"a\.xml: cannot read it: this is no file"):
        build_index(VocSettings(), voc)
    with pytest.raises(UserError, match="this is no file"):
        build_index(VocSettings(tags_from="cls_labels"), voc)


def test_broken_links_are_told_from_missing_files(root: Path) -> None:
    (root / "images" / "b.jpg").symlink_to("/nowhere/b.jpg")
    assert "it is a link to a file that is not there" in refusal(root)


def test_names_that_are_no_text_are_refused(root: Path) -> None:
    name = os.fsdecode(b"b\xe9.jpg")
    Image.new("RGB", (8, 6)).save(root / "images" / name)
    assert "b\\udce9.jpg" in refusal(root)
    folders = root / "folders" / "dog"
    folders.mkdir(parents=True)
    Image.new("RGB", (8, 6)).save(folders / name)
    with pytest.raises(UserError, match="is not UTF-8, which tables and labels cannot hold"):
        build_index(ClassFoldersSettings(), root / "folders")


def test_names_in_other_characters_say_why_they_differ(root: Path) -> None:
    composed, decomposed = "caf\u00e9.jpg", "cafe\u0301.jpg"
    (root / "labels.csv").write_text(f"image,tags\na.png,dog\n{composed},dog\n")
    Image.new("RGB", (8, 6)).save(root / "images" / decomposed)
    message = refusal(root)
    assert "labels.csv, line 3: there is no images/caf" in message
    assert "'cafe\\u0301.jpg', not 'caf\\xe9.jpg'" in message and "NFC" in message


def test_each_offender_keeps_its_help(root: Path) -> None:
    (root / "images" / "b.jpg").write_bytes(without(jpeg(photograph()), 0.4, 0.6))
    assert "to do: fetch the file again or leave it out" in refusal(root)
    Image.new("RGB", (8, 6)).save(root / "images" / "b.jpg")
    index = build_index(FolderSettings(), root)
    (root / "masks").mkdir()
    Image.new("RGB", (8, 6), (1, 2, 3)).save(root / "masks" / "a.png")
    with pytest.raises(UserError) as caught:
        build_masks(FolderSettings(), root, index)
    assert "masks/a.png" in caught.value.found
    assert "to do: save the labels themselves, not their colours" in caught.value.found


def test_a_damaged_label_of_a_stage_says_to_run_the_stage(tmp_path: Path) -> None:
    folder = tmp_path / "pseudo labels"
    folder.mkdir()
    write_label(folder / "a.png", np.random.default_rng(0).integers(0, 9, (60, 80), dtype=np.uint8))
    whole = (folder / "a.png").read_bytes()
    (folder / "a.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="fetch the file again"):
        read_label(folder / "a.png")
    write_mark(folder)
    with pytest.raises(UserError) as caught:
        read_label(folder / "a.png")
    assert f"rm -r '{folder}'" in str(caught.value) and "fetch" not in str(caught.value)
