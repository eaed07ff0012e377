"""JSON that other programs wrote: read strictly, as what is in doubt in it decides about tags."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from wsss.data.listing import require_file
from wsss.errors import UserError

_K = TypeVar("_K")
_T = TypeVar("_T")


def read_data_json(path: Path) -> Any:
    """Read a JSON file, with a byte order mark or without one.

    Raises:
        UserError: It is missing or no file, cannot be read, or is not JSON; see `parse_json`.
    """
    require_file(path)
    # Handed on without a name of its own: the bytes of a large file go when its text is there.
    return parse_json(_content(path), path)


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise UserError("this file does not exist", where=path) from None
    except (OSError, ValueError) as error:  # a ValueError: a NUL in the path
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"cannot read this file: {reason}", where=path) from None


def parse_json(content: bytes | str, place: object) -> Any:
    """Return what JSON says.

    JSON allows a key to stand twice in an object, and Python then keeps the last one: half of the
    pictures of two files that were put together would be gone without a word.

    Args:
        content: The JSON, in UTF-8 or UTF-16 if it is bytes.
        place: Where it stands, for messages.

    Raises:
        UserError: It is not JSON, nested too deeply, or has a key with two values in an object.
    """
    try:
        if isinstance(content, bytes):
            content = content.decode(json.detect_encoding(content))
        return json.loads(content, object_pairs_hook=_object)
    except RecursionError:
        raise UserError("this is not JSON: it is nested too deeply", where=place) from None
    except ValueError as error:
        # Of a number of thousands of digits Python says how to allow it.
        reason = str(error).partition("; use sys.")[0]
        raise UserError(f"this is not JSON: {reason}", where=place) from None


def _object(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        for key, value in pairs:
            if values[key] != value:
                raise ValueError(f"the key {key[:60]!r} stands twice in one object")
    return values


def put_once(found: dict[_K, _T], key: _K, value: _T) -> None:
    """Put a value under an id that is its own.

    Raises:
        ValueError: Something else has the id.
    """
    if found.setdefault(key, value) != value:
        raise ValueError(f"two entries have the id {key}: {found[key]!s:.60} and {value!s:.60}")


def whole_number(value: Any) -> int:
    """Return a value that is to be a whole number, such as an id, as one.

    Raises:
        ValueError: It is a fraction, infinite, or text without a number.
        TypeError: It is something else.
    """
    try:
        number = int(value)
    except OverflowError:
        raise ValueError(f"{value} is no whole number") from None
    if isinstance(value, float) and number != value:
        raise ValueError(f"{value} is no whole number")
    return number
