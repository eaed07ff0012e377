"""Digests of all files below a folder: by their contents, and by their sizes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from wsss.data.fingerprints import remembered, tree_digest, tree_sizes_digest
from wsss.errors import UserError


def test_an_edit_of_the_same_size_changes_a_tree(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b.bmp").write_bytes(b"12")
    with remembered(tmp_path / "memory", tmp_path / "a"):
        before = tree_digest(tmp_path / "a")
        (tmp_path / "a" / "b.bmp").write_bytes(b"21")
        assert tree_digest(tmp_path / "a") != before
        (tmp_path / "a" / "b.bmp").write_bytes(b"12")
        assert tree_digest(tmp_path / "a") == before


def test_a_tree_may_hold_links_to_nothing_and_names_that_are_no_text(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"12")
    for digest in (tree_digest, tree_sizes_digest):
        before = digest(tmp_path)
        link, odd = tmp_path / "gone.png", Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.png"))
        link.symlink_to("nowhere")
        with_link = digest(tmp_path)
        odd.write_bytes(b"")
        assert len({before, with_link, digest(tmp_path)}) == 3
        link.unlink()
        odd.unlink()


def test_a_folder_that_cannot_be_read_is_not_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "dog").mkdir()
    real = os.scandir

    def refusing(path: str) -> Any:
        # The tests may run as an account that may read everything.
        if str(path).endswith("dog"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", refusing)
    for digest in (tree_digest, tree_sizes_digest):
        with pytest.raises(UserError, match="cannot read this folder: Permission denied"):
            digest(tmp_path)


def test_links_that_lead_back_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.png").write_bytes(b"1")
    before = tree_digest(tmp_path)
    # Each way through two of them would be a way of its own: 2 to the 40th.
    for name in ("one", "other"):
        (tmp_path / "a" / name).symlink_to(tmp_path)
    assert tree_digest(tmp_path) == before
    # A link beside it is another name of its content.
    (tmp_path / "b").symlink_to("a")
    assert tree_digest(tmp_path) != before
