"""Masks without classes that another program has made, as run lengths of COCO's kind."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from wsss.cam.imported_maps import below, require_pictures
from wsss.data.coco_entries import plain_id
from wsss.data.index import ImageRecord
from wsss.data.json_files import read_data_json
from wsss.data.run_lengths import run_lengths
from wsss.errors import UserError
from wsss.files import is_below

_SCORES = ("score", "predicted_iou")
_SHAPES = (
    "a list of masks, or an object with the list `annotations`, each mask an object whose "
    "`segmentation` is {size: [H, W], counts: ...}"
)


@dataclass(frozen=True)
class PictureMasks:
    """The masks of one picture, decoded one at a time.

    Attributes:
        encoded: As the file has them.
        size: (H, W) of the picture.
        place: The file, for messages.
    """

    encoded: Sequence[Mapping[str, Any]]
    size: tuple[int, int]
    place: str

    def __iter__(self) -> Iterator[npt.NDArray[np.bool_]]:
        for number, entry in enumerate(self.encoded):
            yield _decoded(entry, self.size, f"{self.place}, mask {number}")


@dataclass(frozen=True)
class Masks:
    """Masks of pictures: `NAME.json` each, or one COCO JSON of all of them.

    A picture's file holds a list of masks, as SAM's mask generator gives them, or an object with
    such a list in `annotations`, as SA-1B does. One file of all pictures has `images` and
    `annotations`; pictures are told by the `file_name`'s stem. Classes in it are not looked at.

    Attributes:
        folder: Where they lie.
        file: The one file, relative to it; empty: one a picture.
        min_score: Masks of a lower `score` or `predicted_iou` are left out; 0: none is asked for.
    """

    folder: Path
    file: str = ""
    min_score: float = 0.0

    def check(self, records: Sequence[ImageRecord]) -> None:
        """Check that every picture has masks, if only none of them.

        Raises:
            UserError: Some are missing, or a file leads out of its folder.
        """
        if self.file:
            missing = [record.name for record in records if record.name not in self._of_all]
            expected = "each picture in `images`, by its file_name"
        else:
            files = {record.name: below(self.folder, f"{record.name}.json") for record in records}
            missing = [name for name, file in files.items() if not file.is_file()]
            expected = "NAME.json each"
        require_pictures(missing, len(records), folder=self.folder / self.file, expected=expected)

    def read(self, record: ImageRecord) -> PictureMasks:
        """Return the masks of a picture.

        Raises:
            UserError: The file is damaged, or a mask has no score and is asked for one. What is
                wrong with a mask is said where it is decoded.
        """
        if self.file:
            place, found = self.folder / self.file, self._of_all[record.name]
        else:
            place = below(self.folder, f"{record.name}.json")
            found = _entries(read_data_json(place), place)
        if self.min_score:
            found = [entry for entry in found if _score(entry, place) >= self.min_score]
        return PictureMasks(found, (record.height, record.width), str(place))

    @cached_property
    def _of_all(self) -> dict[str, list[Mapping[str, Any]]]:
        place = below(self.folder, self.file)
        document = read_data_json(place)
        images = document.get("images") if isinstance(document, dict) else None
        if not isinstance(images, list):
            raise UserError(
                "this is no COCO JSON", where=place, expected="an object with `images`, a list"
            )
        names: dict[int | str, str] = {}
        found: dict[str, list[Mapping[str, Any]]] = {}
        for image in images:
            if not isinstance(image, dict) or not isinstance(image.get("file_name"), str):
                raise UserError("an image without file_name", where=place)
            if not is_below(image["file_name"]):
                raise UserError(
                    f"the picture {image['file_name']!r} leads out of its folder", where=place
                )
            key, name = _id(image.get("id"), place), Path(image["file_name"]).stem
            if names.setdefault(key, name) != name or name in found:
                raise UserError(
                    f"two images have the id {key!r} or the name {name!r}",
                    where=place,
                    expected="an id and a name of its own for each",
                )
            found[name] = []
        for entry in _entries(document, place):
            key = _id(entry.get("image_id"), place)
            if key not in names:
                raise UserError(
                    f"a mask of the image {key!r}, which is not in `images`", where=place
                )
            found[names[key]].append(entry)
        return found


def _id(value: Any, place: Path) -> int | str:
    try:
        return plain_id(value)
    except (TypeError, ValueError):
        raise UserError(
            f"the id {str(value)[:60]} of an image",
            where=place,
            expected="a whole number or text",
        ) from None


def _entries(document: Any, place: Path) -> list[Mapping[str, Any]]:
    found = document.get("annotations") if isinstance(document, dict) else document
    if not isinstance(found, list) or not all(isinstance(entry, dict) for entry in found):
        raise UserError("this holds no masks", where=place, expected=_SHAPES)
    return found


def _score(entry: Mapping[str, Any], place: Path) -> float:
    for key in _SCORES:
        value = entry.get(key)
        if isinstance(value, (int, float)) and -math.inf < value < math.inf:
            return value
    raise UserError(
        "a mask has no score, and cam.min_score asks for one",
        where=place,
        expected=" or ".join(_SCORES),
        fix="set cam.min_score to 0, or have the scores written along",
    )


def _decoded(entry: Mapping[str, Any], size: tuple[int, int], place: str) -> npt.NDArray[np.bool_]:
    """Return a mask (H, W)."""
    segmentation = entry.get("segmentation")
    if not isinstance(segmentation, dict) or not {"size", "counts"} <= segmentation.keys():
        raise UserError("this mask is not in run lengths", where=place, expected=_SHAPES)
    if segmentation["size"] != list(size):
        raise UserError(
            f"this mask has the size {segmentation['size']}",
            where=place,
            expected=f"[{size[0]}, {size[1]}], height and width of the picture",
            fix="make the masks of the pictures as they are, unresized",
        )
    try:
        runs = run_lengths(segmentation["counts"])
    except ValueError as error:
        raise UserError(f"this mask cannot be decoded: {error}", where=place) from None
    if sum(runs) != size[0] * size[1]:
        raise UserError(
            f"the run lengths of this mask add up to {sum(runs)}",
            where=place,
            expected=f"{size[0] * size[1]}, the picture's pixels",
        )
    # Column by column, first what is outside.
    values = np.arange(len(runs)) % 2 == 1
    return np.asarray(np.repeat(values, runs).reshape(size[::-1]).T)
