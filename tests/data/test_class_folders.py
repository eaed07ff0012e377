"""A folder a class: names that are none, and what a change of the folders is."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from wsss.data.build import build_index, listing_fingerprint
from wsss.data.fingerprints import tree_digest
from wsss.data.formats.class_folders import ClassFoldersSettings
from wsss.errors import UserError

SETTINGS = ClassFoldersSettings()


def _picture(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 6)).save(path)


def test_a_folder_that_cannot_be_a_class_is_said(tmp_path: Path) -> None:
    for name in ("cat", "Background"):
        _picture(tmp_path / name / "a.png")
    with pytest.raises(UserError, match=r"Background: 'Background' is reserved"):
        build_index(SETTINGS, tmp_path)


def test_pictures_without_folders_have_no_classes(tmp_path: Path) -> None:
    _picture(tmp_path / "a.png")
    with pytest.raises(UserError, match="there is no folder here") as caught:
        listing_fingerprint(SETTINGS, tmp_path)
    assert caught.value.expected == "a folder for each class"


def test_all_files_count_but_hidden_ones(tmp_path: Path) -> None:
    for name in ("cat/a.png", "cat/old/b.png", ".git/x", "cat/.thumbs/a.png"):
        _picture(tmp_path / f"{name}.png")
    seen = {tree_digest(tmp_path)}
    for name in (".git/y", "cat/.thumbs/b.png", "cat/.DS_Store"):
        (tmp_path / name).write_text("hidden")
        assert tree_digest(tmp_path) in seen
    for name in ("cat/c.png", "cat/old/d.png", "cat/old/deep/d.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        for content in ("", "more"):
            (tmp_path / name).write_text(content)
            digest = tree_digest(tmp_path)
            assert digest not in seen
            seen.add(digest)
