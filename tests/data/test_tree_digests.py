"""Digests of all files below a folder: by their contents, and by their sizes."""

from __future__ import annotations

import os
from pathlib import Path

from wsss.data.fingerprints import remembered, tree_digest, tree_sizes_digest


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
