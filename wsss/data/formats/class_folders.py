"""A folder a class: CLASS/*.jpg, or SET/CLASS/*.jpg."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from wsss.data.class_names import (
    ALPHABETICAL,
    FROM_FILE,
    arranged,
    in_order,
    joined_names,
    order_note,
)
from wsss.data.fingerprints import combined, file_digests
from wsss.data.formats.folder import find_folder_masks, folder_mask_fingerprint
from wsss.data.formats.pictures import (
    SET_NAMES,
    files_below,
    folders_in,
    image_name,
    is_picture,
    note_left_out,
    pictures_digest,
    split_off_val,
)
from wsss.data.formats.registry import FORMATS, DataFormat, IndexSettings
from wsss.data.listing import (
    Entry,
    Listing,
    Problem,
    class_problems,
    names_in,
)
from wsss.data.tags import clean_name
from wsss.errors import UserError, listed
from wsss.runtime.settings import BelowOne


class ClassFoldersSettings(IndexSettings):
    """How pictures in a folder a class are split."""

    format: Literal["class_folders"] = "class_folders"
    """A folder a class."""

    val_share: BelowOne = 0.0
    """Share of the training pictures that become `val` where the data name no such set."""


def _sets(root: Path) -> bool:
    """Say whether the folders directly below are image sets."""
    folders = {name.lower() for name in folders_in(root)}
    return bool(folders) and folders <= SET_NAMES.keys()


def _sets_among(classes: Sequence[str]) -> list[Problem]:
    """Return a problem where folders that are taken for classes are called as image sets are."""
    sets = [name for name in classes if name.lower() in SET_NAMES]
    if len({SET_NAMES[name.lower()] for name in sets}) < 2:
        return []
    others = [name for name in classes if name not in sets]
    reason = (
        f"the folders {listed(sets, 4)} are called as image sets are, and beside them lie pictures "
        f"in {listed(others, 4)}: take these away, or, if all are classes, list them in classes.txt"
    )
    return [Problem(sets[0], 0, "sets or classes", reason)]


def list_class_folders(settings: ClassFoldersSettings, root: Path) -> Listing:
    """List pictures whose folder is their class.

    A picture that lies in several of these folders, under one file name and with the same
    content, is one picture with several tags.
    """
    has_sets = _sets(root)
    depth = 1 if has_sets else 0
    kept: dict[str, list[str]] = {}
    foreign: list[str] = []
    loose: list[str] = []
    for file in files_below(root):
        parts = file.split("/")
        if not is_picture(file):
            foreign.append(file)
        elif len(parts) < depth + 2 or (has_sets and parts[0].lower() not in SET_NAMES):
            loose.append(file)
        else:
            # Below a class's folder there may be more.
            group = "/".join([*parts[:depth], *parts[depth + 1 :]])
            kept.setdefault(group, []).append(file)
    found = in_order(
        clean_name(file.split("/")[depth]) for files in kept.values() for file in files
    )
    problems = joined_names(found, file=None)
    classes, order = arranged(root, found, ALPHABETICAL, problems)
    problems += class_problems(classes, file=None, root=root.name)
    listing = Listing(classes, problems=problems, notes=[order_note(order)])
    listing.chosen = order == FROM_FILE
    if not has_sets and not listing.chosen:
        listing.problems += _sets_among(classes)
    for files in kept.values():
        for same in _same_content(root, files):
            set_name = SET_NAMES[same[0].split("/")[0].lower()] if has_sets else "train"
            names = {clean_name(file.split("/")[depth]) for file in same}
            tags = tuple(name for name in classes if name in names)
            listing.entries.append(
                Entry(image_name(same[0]), same[0], (set_name,), tags, same[0], 0, same[0])
            )
    _check_names(listing)
    note_left_out(listing, loose, "pictures in no class's folder")
    note_left_out(listing, foreign, "no pictures")
    split_off_val(listing, settings.val_share)
    return listing


def _same_content(root: Path, files: list[str]) -> list[list[str]]:
    """Group files of one name by their content."""
    if len(files) == 1:
        return [files]
    groups: dict[str, list[str]] = {}
    for file, digest in zip(files, file_digests(files, f"{os.fspath(root)}/"), strict=True):
        groups.setdefault(digest, []).append(file)
    return list(groups.values())


def _check_names(listing: Listing) -> None:
    first: dict[str, str] = {}
    for entry in listing.entries:
        other = first.setdefault(entry.name, entry.path)
        if other != entry.path:
            reason = f"{other} has the same name but for its suffix"
            listing.problems.append(Problem(entry.path, 0, "two pictures of one name", reason))


def recognise(root: Path) -> Mapping[str, Any] | None:
    """Return settings if every picture lies in a folder below.

    Raises:
        UserError: There are pictures, and too few folders that could be classes.
    """
    depth = 3 if _sets(root) else 2
    pictures = [file for file in files_below(root) if is_picture(file)]
    deep = [file for file in pictures if len(file.split("/")) >= depth]
    if depth == 3:
        deep = [file for file in deep if file.split("/")[0].lower() in SET_NAMES]
    folders = {file.split("/")[depth - 2] for file in deep}
    if not pictures:
        return None
    if len(folders) < 2 or len(deep) * 2 < len(pictures):
        raise UserError(
            f"no list says what is in the pictures ({len(pictures)}), and they do not lie in two "
            "or more folders, one a class",
            where=root,
        )
    return {"format": "class_folders"}


def _list_fingerprint(settings: ClassFoldersSettings, root: Path) -> str:
    if not any((root / name).is_dir() for name in names_in(root)):
        raise UserError("there is no folder here", where=root, expected="a folder for each class")
    return combined("class_folders", pictures_digest(root))


FORMATS.register(
    DataFormat(
        name="class_folders",
        description="a folder a class",
        settings=ClassFoldersSettings,
        list_images=list_class_folders,
        find_masks=find_folder_masks,
        list_fingerprint=_list_fingerprint,
        mask_fingerprint=folder_mask_fingerprint,
        recognise=recognise,
    )
)
