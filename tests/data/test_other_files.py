"""Files called as pictures that are something else: what they are is said."""

from __future__ import annotations

from pathlib import Path

import pytest

from wsss.data.images import probe_image, read_image
from wsss.data.other_files import what_it_is
from wsss.errors import UserError

KINDS = {
    b"": "WEBP: it is empty",
    b"\0\0\0\x18ftypheic\0\0\0\0mif1": "WEBP, but HEIC, whatever its name; convert it",
    b"\0\0\0\x1cftypavif\0\0\0\0mif1": "WEBP, but AVIF, whatever its name; convert it",
    b"GIF89a": "WEBP, but a GIF; convert it",
    b"%PDF-1.7": "WEBP, but a PDF",
    b"version https://git-lfs.github.com/spec/v1\noid sha256:0": "git lfs pull",
    b"\r\n <!DOCTYPE html><title>404": "WEBP, but a web page",
    b"some other bytes": "WEBP$",
}


@pytest.mark.parametrize("read", [read_image, probe_image])
@pytest.mark.parametrize("content", KINDS)
def test_what_a_file_is_is_said(tmp_path: Path, read, content: bytes) -> None:
    (tmp_path / "a.jpg").write_bytes(content)
    with pytest.raises(UserError) as caught:
        read(tmp_path / "a.jpg")
    assert caught.match(r"it is none of BMP, JPEG, PNG, TIFF, WEBP")
    found = caught.value.found
    assert found.endswith("WEBP") if KINDS[content] == "WEBP$" else KINDS[content] in found


def test_what_is_called_by_its_name_is_damaged(tmp_path: Path) -> None:
    (tmp_path / "a.heic").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1")
    assert what_it_is(tmp_path / "a.heic") == ""
