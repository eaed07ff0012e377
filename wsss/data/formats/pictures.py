"""What formats for other people's layouts share: finding and naming pictures, splitting off val."""

from __future__ import annotations

import hashlib
import os
import re
import unicodedata
from array import array
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from urllib.parse import unquote

import numpy as np

from wsss.data.fingerprints import named_digest
from wsss.data.images import IMAGE_SUFFIXES
from wsss.data.listing import Entries, Listing, Problem, names_in, nearest, refuse_folder
from wsss.errors import listed
from wsss.runtime.names import Names

_SHOWN = 5
_UPLOADED = re.compile(r"[0-9a-f]{8}-")

MASKS = "masks"
"""Folder for masks under the data root, whatever the layout: NAME.png, NAME as the index has it."""

SET_NAMES = {
    **{"train": "train", "training": "train"},
    **{"val": "val", "valid": "val", "validation": "val", "dev": "val"},
    **{"test": "test", "testing": "test"},
}
"""How people call image sets -> what they are called here."""


# In the topmost folder of a disk or a share, and often for nobody to read.
_OF_DISKS = ("lost+found", "System Volume Information", "$RECYCLE.BIN", "#recycle", "@eaDir")


# Where data lie around a working folder, or in it, its results are no pictures of theirs: each
# start would find other data than the one before.
_OF_WORKING_FOLDERS = (
    *("Snakefile", "config.yaml", "config.local.yaml"),
    *("workflow", "profiles", "envs", "results"),
)


def is_working_folder(folders: Collection[str], files: Collection[str]) -> bool:
    """Say by what is in a folder whether runs are made in it."""
    return {"Snakefile", "config.yaml"} <= set(files) and {"workflow", "profiles"} <= set(folders)


def folders_in(root: Path) -> set[str]:
    """Return the folders directly below a folder that can be part of a data set, by their names.

    Those of masks, hidden ones, working folders, and what belongs to one are none.
    """
    folders, files = _content(root)
    ours = _OF_WORKING_FOLDERS if is_working_folder(folders, files) else ()
    return {
        name
        for name in folders
        if name[0] != "."
        and name not in (MASKS, *ours)
        and not is_working_folder(*_content(root / name))
    }


def _content(folder: Path) -> tuple[list[str], list[str]]:
    """Return the names of the folders and of the files in a folder; none, if it cannot be read."""
    return next(((folders, files) for _, folders, files in os.walk(folder)), ([], []))


def files_below(root: Path) -> Iterator[str]:
    """Yield the files below a folder, in order, as paths relative to it; hidden ones left out.

    The folder of masks is left out, too, and so is what belongs to a working folder, its results
    among it.

    Raises:
        UserError: A folder cannot be read.
    """
    base = os.fspath(root)
    seen: set[tuple[int, int]] = set()
    for folder, folders, files in os.walk(base, onerror=refuse_folder, followlinks=True):
        try:
            status = os.stat(folder)  # noqa: PTH116
        except FileNotFoundError:
            continue  # taken away since the folder above it was read
        if (status.st_dev, status.st_ino) in seen:
            folders.clear()  # a link to a folder above it, or beside it
            continue
        seen.add((status.st_dev, status.st_ino))
        place = "" if folder == base else Path(os.path.relpath(folder, base)).as_posix() + "/"
        ours = _OF_WORKING_FOLDERS if is_working_folder(folders, files) else ()
        folders[:] = sorted(
            name
            for name in folders
            if name[0] != "." and place + name not in (MASKS, *_OF_DISKS) and name not in ours
        )
        yield from (place + name for name in sorted(files) if name[0] != "." and name not in ours)


def _bare(file: str) -> str:
    """Return a path without its suffix."""
    return os.path.splitext(file)[0]  # noqa: PTH122 - a `Path` for each of 80,000 takes longer


def is_picture(file: str) -> bool:
    """Say whether a file is taken for a picture, by its suffix."""
    return file[len(_bare(file)) :].lower() in IMAGE_SUFFIXES


def spelt_otherwise(folder: Path) -> dict[str, str]:
    """Return the PNG files of a folder whose suffix is not `.png`: `a.PNG` by `a`."""
    found: dict[str, str] = {}
    for name in names_in(folder):
        stem, suffix = os.path.splitext(name)  # noqa: PTH122 - as above
        if suffix != ".png" and suffix.lower() == ".png" and name[0] != ".":
            found.setdefault(stem, name)
    return found


def image_name(file: str) -> str:
    """Return the name of a picture in a subfolder: `cats/001.jpg` is `cats__001`.

    Names are those of files and of groups in HDF5, where a `/` would be a folder.
    """
    return _bare(file).replace("/", "__")


def pictures_digest(root: Path) -> str:
    """Hash the names and contents of all files below a folder, apart from the masks."""
    return named_digest(root, files_below(root))


def _keys(file: str) -> set[str]:
    """Return what a list may call a file: its path or its name, with or without suffix."""
    name = file.rpartition("/")[2]
    return {file, name, _bare(name), _bare(file)}


def _ends_alike(wanted: str, file: str) -> bool:
    """Say whether of two paths one is the end of the other, whatever their suffixes."""
    one, other = (list(reversed(_bare(path).split("/"))) for path in (wanted, file))
    return all(a == b for a, b in zip(one, other, strict=False))


def spellings(text: str) -> Iterator[str]:
    """Yield what may be meant by what a list calls a picture, the likeliest first.

    As it stands; decoded, where it is a part of an address (`my%20photo.jpg`); and without the
    eight digits that Label Studio puts before the name of what is uploaded.
    """
    plain = text.strip().replace("\\", "/").removeprefix("./").lstrip("/")
    decoded = unquote(plain).replace("\\", "/")
    names = [plain] if decoded == plain else [plain, decoded]
    yield from names
    for name in names:
        folder, mark, last = name.rpartition("/")
        if _UPLOADED.match(last):
            yield folder + mark + _UPLOADED.sub("", last)


class Finder:
    """Finds the pictures that a list names: by path, else by file name, else without suffix.

    Keys are told by their hashes: a picture takes 57 bytes at most, and the characters of its path.

    Args:
        root: Folder below which they lie.
    """

    def __init__(self, root: Path) -> None:
        self.files, self._root = Names(), root
        self._moved, self._some_moved = 0, list[str]()
        hashes, places = array("q"), array("i")
        for file in files_below(root):
            if is_picture(file):
                found = _keys(file)
                hashes.extend(map(hash, found))
                places.extend(array("i", [len(self.files)]) * len(found))
                self.files.append(file)
        every = np.frombuffer(hashes, np.int64)
        # Stable: the files of a key stay in their order.
        order = np.argsort(every, kind="stable")
        self._hashes, self._places = every[order], np.frombuffer(places, np.intc)[order]
        self._last: tuple[str, list[int]] = "", []
        self._used = np.zeros(len(self.files), np.bool_)

    def _called(self, key: str) -> list[int]:
        """Return which files a key may stand for, in their order."""
        # A list may ask for one name again and again, and many files may have it.
        if self._last[0] != key:
            wanted = hash(key)
            first = np.searchsorted(self._hashes, wanted, "left")
            last = np.searchsorted(self._hashes, wanted, "right")
            found = self._places[first:last].tolist()
            self._last = key, [place for place in found if key in _keys(self.files[place])]
        return self._last[1]

    def _found(self, wanted: str, place: str) -> list[tuple[int, str]]:
        """Return the pictures that a name may stand for, with their positions."""
        for key in (wanted, Path(wanted).name, Path(wanted).stem):
            found = [(position, self.files[position]) for position in self._called(key)]
            # A path from another machine ends like the picture's.
            near = [each for each in found if wanted.endswith(each[1]) or each[1].endswith(wanted)]
            if len(near) > 1:
                # In each set's folder a list of its own, as Roboflow and others have it.
                beside = place[: place.rfind("/") + 1] + wanted
                near = [each for each in near if each[1] == beside != wanted] or near
            found = near if len(near) == 1 else found
            if found:
                return found
        return []

    def find(self, text: str, place: str, line: int, problems: list[Problem]) -> str | None:
        """Return the picture's path relative to the root; None, and a problem: there is none."""
        wanted = ""
        for name in spellings(text):
            wanted = wanted or name
            found = self._found(name, place)
            if len(found) == 1:
                position, file = found[0]
                self._used[position] = True
                # Of a path from another machine the end is the same.
                if not _ends_alike(unquote(wanted), file):
                    self._moved += 1
                    if len(self._some_moved) < _SHOWN:
                        self._some_moved.append(f"{wanted}: {file}")
                return file
            if len(found) > 1:
                files = listed((file for _, file in found), 4)
                reason = f"{text!r} could be any of {files}: write more of its path"
                problems.append(Problem(place, line, "ambiguous image", reason))
                return None
        other_kind = _bare(wanted) != wanted and not is_picture(wanted)
        if other_kind and os.path.isfile(self._root / wanted):  # noqa: PTH113 - takes any name
            reason = f"{text!r} ends in none of {', '.join(IMAGE_SUFFIXES)}: convert it"
            problems.append(Problem(place, line, "file that is no picture", reason))
            return None
        # Not the nearest of all names, which takes long where all of many pictures are missing.
        composed = unicodedata.normalize("NFC", wanted)
        other = self._composed.get(composed) or (composed if self._called(composed) else None)
        hint = nearest(wanted, [other] if other else [])
        problems.append(Problem(place, line, "missing image", f"there is no {text!r} here{hint}"))
        return None

    @cached_property
    def _composed(self) -> dict[str, str]:
        """The keys that are stored in other characters than composed ones, by these."""
        return {
            unicodedata.normalize("NFC", key): key
            for file in self.files
            if not unicodedata.is_normalized("NFC", file)
            for key in _keys(file)
            if not unicodedata.is_normalized("NFC", key)
        }

    def moved(self) -> list[str]:
        """Return a note for people where pictures lie in other folders than the list says."""
        if not self._moved:
            return []
        some = ", ".join(self._some_moved) + (", ..." if self._moved > _SHOWN else "")
        return [f"in another folder than the list says, by their names: {self._moved} ({some})"]

    def unlisted(self) -> Names:
        """Return the pictures that nothing named."""
        return self.files.take(np.flatnonzero(~self._used))


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
        listing.notes.append(f"left out, {what}: {len(files)} ({listed(files, _SHOWN)})")
