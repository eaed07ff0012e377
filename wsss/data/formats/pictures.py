"""What formats for other people's layouts share: finding and naming pictures, splitting off val."""

from __future__ import annotations

import hashlib
import os
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path

from wsss.data.fingerprints import named_digest
from wsss.data.images import IMAGE_SUFFIXES
from wsss.data.listing import Entries, Listing, Problem, nearest
from wsss.errors import UserError, listed

MASKS = "masks"
"""Folder for masks under the data root, whatever the layout: NAME.png, NAME as the index has it."""

SET_NAMES = {
    **{"train": "train", "training": "train"},
    **{"val": "val", "valid": "val", "validation": "val", "dev": "val"},
    **{"test": "test", "testing": "test"},
}
"""How people call image sets -> what they are called here."""


# In the topmost folder of a disk, for nobody to read.
_OF_DISKS = "lost+found"


def _refuse(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        # Left out, its pictures would be missing, or its class.
        raise UserError(
            f"cannot read this folder: {error.strerror}",
            where=error.filename,
            fix="take it away, or give this account the permission",
        )


def files_below(root: Path) -> Iterator[str]:
    """Yield the files below a folder, in order, as paths relative to it; hidden ones left out.

    The folder of masks is left out, too.

    Raises:
        UserError: A folder cannot be read.
    """
    base = os.fspath(root)
    seen: set[tuple[int, int]] = set()
    for folder, folders, files in os.walk(base, onerror=_refuse, followlinks=True):
        try:
            status = os.stat(folder)  # noqa: PTH116
        except FileNotFoundError:
            continue  # taken away since the folder above it was read
        if (status.st_dev, status.st_ino) in seen:
            folders.clear()  # a link to a folder above it, or beside it
            continue
        seen.add((status.st_dev, status.st_ino))
        place = "" if folder == base else Path(os.path.relpath(folder, base)).as_posix() + "/"
        folders[:] = sorted(
            name for name in folders if name[0] != "." and place + name not in (MASKS, _OF_DISKS)
        )
        yield from (place + name for name in sorted(files) if name[0] != ".")


def _bare(file: str) -> str:
    """Return a path without its suffix."""
    return os.path.splitext(file)[0]  # noqa: PTH122 - a `Path` for each of 80,000 takes longer


def is_picture(file: str) -> bool:
    """Say whether a file is taken for a picture, by its suffix."""
    return file[len(_bare(file)) :].lower() in IMAGE_SUFFIXES


def image_name(file: str) -> str:
    """Return the name of a picture in a subfolder: `cats/001.jpg` is `cats__001`.

    Names are those of files and of groups in HDF5, where a `/` would be a folder.
    """
    return _bare(file).replace("/", "__")


def tree_digest(root: Path) -> str:
    """Hash the names and contents of all files below a folder, apart from the masks."""
    return named_digest(root, files_below(root))


class Finder:
    """Finds the pictures that a list names: by path, else by file name, else without suffix.

    Args:
        root: Folder below which they lie.
    """

    def __init__(self, root: Path) -> None:
        self.files = [file for file in files_below(root) if is_picture(file)]
        self._found: dict[str, list[str]] = {}
        for file in self.files:
            bare, name = _bare(file), file.rpartition("/")[2]
            keys = {file, name, _bare(name), bare}
            for key in keys:
                self._found.setdefault(key, []).append(file)
        self.used: set[str] = set()

    def find(self, text: str, place: str, line: int, problems: list[Problem]) -> str | None:
        """Return the picture's path relative to the root; None, and a problem: there is none."""
        wanted = text.strip().replace("\\", "/").removeprefix("./").lstrip("/")
        for key in (wanted, Path(wanted).name, Path(wanted).stem):
            found = self._found.get(key, [])
            # A path from another machine ends like the picture's.
            near = [file for file in found if wanted.endswith(file) or file.endswith(wanted)]
            found = near if len(near) == 1 else found
            if len(found) == 1:
                self.used.add(found[0])
                return found[0]
            if len(found) > 1:
                reason = f"{text!r} could be any of {listed(found, 4)}: write more of its path"
                problems.append(Problem(place, line, "ambiguous image", reason))
                return None
        # Not the nearest of all names, which takes long where all of many pictures are missing.
        other = self._composed.get(unicodedata.normalize("NFC", wanted))
        hint = nearest(wanted, [other] if other else [])
        problems.append(Problem(place, line, "missing image", f"there is no {text!r} here{hint}"))
        return None

    @cached_property
    def _composed(self) -> dict[str, str]:
        return {unicodedata.normalize("NFC", key): key for key in self._found}

    def unlisted(self) -> list[str]:
        """Return the pictures that nothing named."""
        return [file for file in self.files if file not in self.used]


def _position(name: str) -> float:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") / 2**64


def split_off_val(listing: Listing, share: float) -> None:
    """Put a share of the training pictures into `val`, where no picture is in it yet.

    Which ones depends on their names alone, so that a picture that is added moves no other one.

    Args:
        listing: Changed in place.
        share: 0: none; else about this share of the pictures, at least one of two or more.
    """
    if not share or any("val" in entry.sets for entry in listing.entries):
        return
    candidates = [e.name for e in listing.entries if e.sets == ("train",) and e.tags]
    if len(candidates) < 2:
        return
    order = sorted(candidates, key=_position)
    count = sum(_position(name) < share for name in order)
    chosen = set(order[: min(max(count, 1), len(order) - 1)])
    listing.entries = Entries(
        replace(entry, sets=("val",)) if entry.name in chosen else entry
        for entry in listing.entries
    )
    listing.notes.append(
        f"no set is named val: {len(chosen)} of {len(candidates)} pictures are taken for it, "
        "chosen by their names"
    )


def note_left_out(listing: Listing, files: Sequence[str], what: str) -> None:
    """Say which files are left out."""
    if files:
        listing.notes.append(f"left out, {what}: {len(files)} ({listed(files, 5)})")
