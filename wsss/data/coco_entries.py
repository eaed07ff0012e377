"""COCO JSON as many tools write it: its three lists, and what their entries must say."""

from __future__ import annotations

from typing import Any

from wsss.data.json_files import whole_number
from wsss.errors import UserError

_IDS = {
    "images": ("id",),
    "annotations": ("image_id", "category_id"),
    "categories": ("id",),
}
_NAMES = {"images": "file_name", "categories": "name"}
LISTS = tuple(_IDS)


def has_lists(document: object) -> bool:
    """Say whether a document has the lists that COCO JSON consists of."""
    return isinstance(document, dict) and all(isinstance(document.get(k), list) for k in LISTS)


def plain_id(value: Any) -> int | str:
    """Return an id in one form: some tools write the same one as 1, as 1.0 and as "1".

    Raises:
        ValueError: It is a fraction, or not finite.
        TypeError: It is neither a number nor text.
    """
    if isinstance(value, str):
        number = int(value) if value.isdecimal() and len(value) < 20 else None
        # "01" and "1" may be two pictures.
        return value if number is None or str(number) != value else number
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{value!r} is no id")
    return whole_number(value)


def make_plain(document: dict[str, Any], where: object) -> None:
    """Check that the entries have the ids and names that tie them together, and make ids alike.

    Args:
        document: One that `has_lists`. The ids in it become what `plain_id` makes of them.
        where: Its place, for messages.

    Raises:
        UserError: An entry has none; the message says which.
    """
    for key in LISTS:
        for position, each in enumerate(document[key], start=1):
            field = ""
            try:
                for field in _IDS[key]:
                    each[field] = plain_id(each[field])
                field = _NAMES.get(key, "")
                if field and (type(each[field]) not in (str, int) or each[field] == ""):
                    raise TypeError
            except (KeyError, TypeError, ValueError):
                found = f"{field} {each[field]!r:.60}" if _has(each, field) else f"no {field}"
                raise UserError(
                    f"entry {position} of its {key} has {found}",
                    where=where,
                    expected="ids that are whole numbers or text, and names that are text",
                ) from None


def _has(entry: object, field: str) -> bool:
    return isinstance(entry, dict) and field in entry


def id_order(value: int | str) -> tuple[bool, int]:
    """Return what sorts ids: by number; those that are text come last, as they are listed."""
    return isinstance(value, str), 0 if isinstance(value, str) else value
