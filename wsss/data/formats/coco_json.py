"""COCO JSON of one's own: any file names, any categories; boxes are enough for tags."""

from __future__ import annotations

import json
from codecs import BOM_UTF8, BOM_UTF16_BE, BOM_UTF16_LE
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from wsss.data.class_names import arranged, joined_names, order_note
from wsss.data.coco_entries import LISTS, has_lists, id_order, make_plain
from wsss.data.fingerprints import combined, content_digest
from wsss.data.formats.folder import find_folder_masks, folder_mask_fingerprint
from wsss.data.formats.pictures import (
    MASKS,
    SET_NAMES,
    Finder,
    files_below,
    image_name,
    note_left_out,
    pictures_digest,
    split_off_val,
)
from wsss.data.formats.registry import FORMATS, DataFormat, IndexSettings
from wsss.data.json_files import read_data_json
from wsss.data.listing import (
    Entry,
    Listing,
    Problem,
    bad_class_name,
    class_problems,
)
from wsss.data.tags import clean_name
from wsss.errors import UserError, listed
from wsss.runtime.names import Names
from wsss.runtime.settings import BelowOne

_SHOWN_BYTES = 1 << 16


class CocoJsonSettings(IndexSettings):
    """Which files hold the annotations."""

    format: Literal["coco_json"] = "coco_json"
    """COCO JSON of one's own."""

    train_file: str = "annotations.json"
    """COCO JSON only: the training pictures' file, relative to the data's folder; pictures lie
    anywhere below that folder."""
    val_file: str = ""
    """COCO JSON only: the file of `val`; empty: none."""
    test_file: str = ""
    """COCO JSON only: the file of `test`; empty: none."""
    val_share: BelowOne = 0.0
    """Share of the training pictures that become `val` where the data name no such set."""


def _files(settings: CocoJsonSettings) -> dict[str, str]:
    files = {
        "train": settings.train_file,
        "val": settings.val_file,
        "test": settings.test_file,
    }
    return {name: file for name, file in files.items() if file}


def _read(root: Path, file: str) -> dict[str, Any]:
    values = read_data_json(root / file)
    if not has_lists(values):
        raise UserError(
            "this is no COCO JSON",
            where=root / file,
            expected=f"an object with the lists {', '.join(LISTS)}",
        )
    make_plain(values, root / file)
    found: dict[str, Any] = values
    return found


def list_coco_json(settings: CocoJsonSettings, root: Path) -> Listing:
    """List the pictures of COCO JSON files, with the categories of their annotations as tags.

    Classes are the categories by name, in the order of their ids in the first file that has
    them; which ids they have in which file is of no matter.
    """
    files = _files(settings)
    documents = {name: _read(root, file) for name, file in files.items()}
    classes: dict[str, None] = {}
    problems: list[Problem] = []
    notes: list[str] = []
    empty: dict[str, None] = {}
    for set_name, document in documents.items():
        used = {annotation["category_id"] for annotation in document["annotations"]}
        groups = _groups(document["categories"])
        for each in sorted(document["categories"], key=lambda each: id_order(each["id"])):
            name = clean_name(str(each["name"]))
            # Exports of annotation tools have categories that nothing is ever annotated with.
            if each["id"] in used or not (name in groups or bad_class_name(name.strip("_"))):
                classes.setdefault(name)
            else:
                empty.setdefault(name)
        problems += _ambiguous(document, files[set_name])
        notes += _of_others(document, files[set_name], problems)
    note = "categories without an object that are the background or a group of others"
    unused = [name for name in empty if name not in classes]
    notes += [f"left out, {note}: {listed(unused, 5)}"] if unused else []
    problems += joined_names(tuple(classes), file="categories")
    order = "that of the categories' ids"
    arrangement, order = arranged(root, tuple(classes), order, problems)
    problems += class_problems(arrangement, file="categories")
    listing = Listing(
        arrangement, problems=problems, notes=[order_note(order), *notes], chosen=True
    )
    finder = Finder(root)
    for set_name, document in documents.items():
        _add_set(listing, finder, set_name, files[set_name], document)
    _check_twice(listing)
    listing.notes += finder.moved()
    note_left_out(listing, finder.unlisted(), "pictures that no annotation file lists")
    if any(
        annotation.get("segmentation")
        for document in documents.values()
        for annotation in document["annotations"]
    ):
        listing.notes.append(
            "outlines serve as tags here; as masks they are not used "
            f"(put masks into {MASKS}/NAME.png)"
        )
    split_off_val(listing, settings.val_share)
    return listing


def _groups(categories: list[dict[str, Any]]) -> set[str]:
    """Return the names that others have as their supercategory, as Roboflow lists them."""
    pairs = ((each.get("supercategory"), each["name"]) for each in categories)
    return {clean_name(group) for group, name in pairs if isinstance(group, str) and group != name}


def _ambiguous(document: dict[str, Any], file: str) -> list[Problem]:
    """Return the ids of two, which leave open what an annotation is of."""
    problems = []
    for key, kind, name in (("categories", "category", "name"), ("images", "image", "file_name")):
        names: dict[Any, Any] = {}
        for each in document[key]:
            first = names.setdefault(each["id"], each[name])
            if first != each[name]:
                reason = f"the id {each['id']!r} is that of {first!r} and of {each[name]!r}"
                problems.append(Problem(file, 0, f"{kind} id of two", reason))
    return problems


def _of_others(document: dict[str, Any], file: str, problems: list[Problem]) -> list[str]:
    """Return a note on annotations of images that are not listed; all of them are a problem."""
    listed_ids = {each["id"] for each in document["images"]}
    images = [each["image_id"] for each in document["annotations"]]
    others = {image: None for image in images if image not in listed_ids}
    if not others:
        return []
    of = listed([repr(image) for image in others], 3)
    if len(others) == len(set(images)):
        reason = f"all objects are of images that are not listed: {of}"
        problems.append(Problem(file, 0, "annotations without an image", reason))
        return []
    # Whoever takes some images out of a file often leaves their annotations in it.
    return [f"left out, annotations of images that {file} does not list: {of}"]


def _add_set(
    listing: Listing, finder: Finder, set_name: str, file: str, document: dict[str, Any]
) -> None:
    names = {c["id"]: clean_name(str(c["name"])) for c in document["categories"]}
    tags: dict[Any, set[str]] = {}
    for annotation in document["annotations"]:
        category = names.get(annotation["category_id"])
        if category is None:
            reason = f"annotation {annotation.get('id')}: no such category"
            listing.problems.append(Problem(file, 0, "unknown category", reason))
        else:
            tags.setdefault(annotation["image_id"], set()).add(category)
    without = []
    for image in document["images"]:
        text = str(image["file_name"])
        path = finder.find(text, file, 0, listing.problems)
        if path is None:
            continue
        found = tags.get(image["id"], set())
        if not found:
            without.append(path)
        listing.entries.append(
            Entry(
                name=image_name(path),
                path=path,
                sets=(set_name,),
                tags=tuple(name for name in listing.classes if name in found),
                file=file,
                line=0,
                tags_file=file,
                may_be_untagged=True,
            )
        )
    note_left_out(listing, without, f"in {set_name} without annotations, not trained on")


def _check_twice(listing: Listing) -> None:
    names = Names(entry.name for entry in listing.entries)
    if len(names.last_of_each()) == len(names):
        return
    first: dict[str, Entry] = {}
    for entry in listing.entries:
        other = first.setdefault(entry.name, entry)
        if other is not entry:
            reason = f"{entry.path} is listed twice, or shares its name with {other.path}"
            listing.problems.append(Problem(entry.file, 0, "image listed twice", reason))


def recognise(root: Path) -> Mapping[str, Any] | None:
    """Return settings if there are COCO JSON files: one, or one each for train, val and test.

    Raises:
        UserError: One is damaged or lacks a list, or their names do not say which is which.
    """
    found, broken, empty = [], None, None
    for file in files_below(root):
        if file.endswith(".json") and (root / file).is_file():
            try:
                found += [file] if _looks(root, file) else []
            except UserError as error:
                if not _is_empty(root / file):
                    broken = broken or error
                else:
                    empty = empty or error
    broken = broken or (None if found else empty)
    if broken is not None:
        raise broken  # it may be the half of them
    if len(found) == 1 and _sets_named(found[0]) <= {"train"}:
        return {"format": "coco_json", "train_file": found[0]}
    files: dict[str, str] = {}
    for file in found:
        sets = _sets_named(file)
        if len(sets) != 1 or files.setdefault(next(iter(sets)), file) != file:
            files.clear()
            break
    if found and "train" not in files:
        raise UserError(
            f"files with COCO JSON: {listed(found, 4)}; their names do not say which is for "
            "training",
            where=root,
            expected="one file, or one each with train, val and test in its name",
        )
    named = {f"{name}_file": file for name, file in files.items()}
    return {"format": "coco_json", **named} if found else None


def _sets_named(file: str) -> set[str]:
    """Return the sets that a file's name has among its words."""
    words = Path(file).as_posix().lower().replace("/", "_").replace("-", "_")
    words = words.removesuffix(".json").replace(".", "_")
    # COCO's own have the year in the same word.
    plain = (word.rstrip("0123456789") for word in words.split("_"))
    return {SET_NAMES[word] for word in plain if word in SET_NAMES}


def _looks(root: Path, file: str) -> bool:
    """Say whether a file is COCO JSON.

    Raises:
        UserError: It is meant to be, or the list of another form, and is damaged.
    """
    try:
        with open(root / file, "rb") as handle:
            start = handle.read(_SHOWN_BYTES).removeprefix(BOM_UTF8).lstrip()
    except OSError as error:
        raise UserError(f"cannot read this file: {error.strerror}", where=root / file) from None
    if not start:
        raise UserError("this file is empty", where=root / file)
    if not start.startswith((b"{", BOM_UTF16_LE, BOM_UTF16_BE)):
        return False
    try:
        _read(root, file)
    except UserError:
        # An object of something else is none of ours, unless it has what COCO JSON begins with.
        if not _is_object_of_others(root / file):
            raise
        return False
    return True


def _is_empty(path: Path) -> bool:
    try:
        return path.stat().st_size == 0
    except OSError:
        return False


def _is_object_of_others(path: Path) -> bool:
    try:
        # As it stands: what a key that stands twice means is of no matter here.
        values = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return not isinstance(values, dict) or not any(key in values for key in LISTS)


def _list_fingerprint(settings: CocoJsonSettings, root: Path) -> str:
    files = (content_digest(root / file) for file in _files(settings).values())
    return combined("coco_json", *files, pictures_digest(root))


FORMATS.register(
    DataFormat(
        name="coco_json",
        description="COCO JSON of one's own",
        settings=CocoJsonSettings,
        list_images=list_coco_json,
        find_masks=find_folder_masks,
        list_fingerprint=_list_fingerprint,
        mask_fingerprint=folder_mask_fingerprint,
        recognise=recognise,
    )
)
