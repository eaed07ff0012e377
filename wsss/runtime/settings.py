"""Frozen dataclasses to and from plain dictionaries, with errors that name the place.

The stages' settings are frozen dataclasses of plain types. This module knows no stage: it turns
what a YAML or JSON file holds into such a dataclass, or says where it is wrong, what was
expected and which known key is nearest.
"""

from __future__ import annotations

import ast
import dataclasses
import difflib
import inspect
import itertools
import os
import re
import textwrap
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

from wsss.errors import UserError
from wsss.files import read_json

T = TypeVar("T")

_SCIENTIFIC = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)[eE][+-]?\d+")


def nearest(word: str, known: Iterable[str]) -> str | None:
    """Return the known word nearest to `word`, or None if none is near."""
    matches = difflib.get_close_matches(str(word), [str(name) for name in known], n=1, cutoff=0.6)
    return matches[0] if matches else None


def unknown_key(key: object, known: Iterable[str], *, where: str, kind: str = "key") -> UserError:
    """Build the error for a key that no setting has."""
    names = sorted(known)
    guess = nearest(str(key), names)
    return UserError(
        f"unknown {kind} '{key}'",
        where=where,
        expected=f"one of: {', '.join(names)}" if names else f"no {kind} at all",
        fix=f"did you mean '{guess}'?" if guess else f"correct or remove this {kind}",
    )


def from_dict(cls: type[T], values: Mapping[str, Any], *, where: str) -> T:
    """Build the dataclass `cls` from `values`.

    Args:
        cls: A dataclass of plain types: int, float, bool, str, Literal, tuple, `X | None`,
            nested dataclasses.
        values: Keys and values; keys left out take the dataclass's defaults.
        where: The place named in errors, such as `runs.voc.cam`.

    Raises:
        UserError: An unknown or missing key, a wrong type, or an impossible value.
    """
    if not isinstance(values, Mapping):
        raise _wrong(values, "a mapping of settings", where)
    hints = typing.get_type_hints(cls)
    fields = {field.name: field for field in dataclasses.fields(cls) if field.init}  # type: ignore[arg-type]
    converted: dict[str, Any] = {}
    for key, value in values.items():
        if key not in fields:
            raise unknown_key(key, fields, where=f"{where}.{key}")
        converted[key] = _convert(hints[key], value, f"{where}.{key}")
    for name, field in fields.items():
        if name not in converted and not _has_default(field):
            raise UserError(
                f"the setting '{name}' is missing",
                where=f"{where}.{name}",
                expected=describe(hints[name]),
            )
    try:
        return cls(**converted)
    except UserError as error:
        raise _relocate(error, where, fields) from None


def check(cls: type, values: Any, *, where: str) -> None:
    """Check keys and types of an incomplete section, such as a run's overrides.

    What depends on several settings at once is left to `from_dict` on the merged whole.

    Raises:
        UserError: An unknown key or a wrong type.
    """
    if not isinstance(values, Mapping):
        raise _wrong(values, "a mapping of settings", where)
    hints = typing.get_type_hints(cls)
    names = [field.name for field in dataclasses.fields(cls) if field.init]
    for key, value in values.items():
        place = f"{where}.{key}"
        if key not in names:
            raise unknown_key(key, names, where=place)
        inner = next(
            (kind for kind in _choices(hints[key]) if dataclasses.is_dataclass(kind)), None
        )
        if isinstance(inner, type) and value is not None:
            check(inner, value, where=place)
        else:
            _convert(hints[key], value, place)


def _choices(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)


def _relocate(error: UserError, where: str, fields: Iterable[str]) -> UserError:
    # A dataclass's own check knows the key but not where in the file its section lies.
    inner = error.where
    if inner is None:
        place = where
    elif inner == where or inner.startswith(f"{where}."):
        place = inner
    else:
        # `cam.learning_rate` as said by the check of the section `cam`: keep the key alone.
        first, _, rest = inner.partition(".")
        key = rest if rest and first not in set(fields) else inner
        place = f"{where}.{key}"
    return UserError(error.found, where=place, expected=error.expected, fix=error.fix)


def _has_default(field: dataclasses.Field[Any]) -> bool:
    return (
        field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING
    )


def _convert(hint: Any, value: Any, where: str) -> Any:
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        return _convert_union(hint, value, where)
    if origin is Literal:
        return _convert_literal(hint, value, where)
    if origin is tuple:
        return _convert_tuple(hint, value, where)
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return from_dict(hint, value, where=where)
    if hint is Any:
        return value
    if hint is bool:
        if isinstance(value, bool):
            return value
    elif hint is int:
        if isinstance(value, int) and not isinstance(value, bool):
            return value
    elif hint is float:
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return float(value)
        # YAML 1.1 takes `1e-4` for a text, as it wants a dot; nobody means a text by it.
        if isinstance(value, str) and _SCIENTIFIC.fullmatch(value):
            return float(value)
    elif hint is str:
        if isinstance(value, str):
            return value
    else:
        raise TypeError(f"{where}: settings of type {hint!r} are not supported")
    raise _wrong(value, describe(hint), where)


def _convert_union(hint: Any, value: Any, where: str) -> Any:
    choices = [choice for choice in get_args(hint) if choice is not type(None)]
    if value is None:
        if type(None) in get_args(hint):
            return None
        raise _wrong(value, describe(hint), where)
    if len(choices) == 1:
        return _convert(choices[0], value, where)
    for choice in choices:
        try:
            return _convert(choice, value, where)
        except UserError:
            continue
    raise _wrong(value, describe(hint), where)


def _convert_literal(hint: Any, value: Any, where: str) -> Any:
    choices = get_args(hint)
    for choice in choices:
        if type(choice) is type(value) and choice == value:
            return choice
    guess = nearest(str(value), [str(choice) for choice in choices])
    raise UserError(
        f"{_shown(value)} is not one of the possible values",
        where=where,
        expected=describe(hint),
        fix=f"did you mean '{guess}'?" if guess else None,
    )


def _convert_tuple(hint: Any, value: Any, where: str) -> tuple[Any, ...]:
    if not isinstance(value, (list, tuple)):
        raise _wrong(value, describe(hint), where)
    kinds = get_args(hint)
    if len(kinds) == 2 and kinds[1] is Ellipsis:
        kinds = (kinds[0],) * len(value)
    elif len(kinds) != len(value):
        raise _wrong(value, describe(hint), where)
    return tuple(
        _convert(kind, item, f"{where}[{position}]")
        for position, (kind, item) in enumerate(zip(kinds, value, strict=True))
    )


def describe(hint: Any) -> str:
    """Say in words which values a type accepts."""
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        return " or ".join(describe(choice) for choice in get_args(hint))
    if origin is Literal:
        return "one of: " + ", ".join(str(choice) for choice in get_args(hint))
    if origin is tuple:
        kinds = get_args(hint)
        if len(kinds) == 2 and kinds[1] is Ellipsis:
            return f"a list, each item {describe(kinds[0])}"
        return f"a list of {len(kinds)}: " + ", ".join(describe(kind) for kind in kinds)
    if hint is type(None):
        return "null"
    if dataclasses.is_dataclass(hint):
        return "a mapping of settings"
    words = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}
    return words.get(hint, str(hint))


def _shown(value: Any) -> str:
    return repr(value) if isinstance(value, str) else str(value)


def _wrong(value: Any, expected: str, where: str) -> UserError:
    kind = {type(None): "null", dict: "a mapping", list: "a list"}.get(type(value))
    shown = kind or f"{_shown(value)} ({type(value).__name__})"
    return UserError(f"{shown} is not {expected}", where=where, expected=expected)


def to_dict(instance: Any) -> dict[str, Any]:
    """Return the dataclass as plain JSON values: tuples become lists, every key is present."""
    if not dataclasses.is_dataclass(instance) or isinstance(instance, type):
        raise TypeError(f"not a dataclass instance: {instance!r}")
    return {
        field.name: _plain(getattr(instance, field.name)) for field in dataclasses.fields(instance)
    }


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return to_dict(value)
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value


def field_docs(cls: type) -> dict[str, str]:
    """Return each field's one-line description: the string or the comment that follows it."""
    source = textwrap.dedent(inspect.getsource(cls))
    lines = source.splitlines()
    definition = ast.parse(source).body[0]
    assert isinstance(definition, ast.ClassDef)
    docs: dict[str, str] = {}
    for statement, following in itertools.zip_longest(definition.body, definition.body[1:]):
        if not (isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name)):
            continue
        name = statement.target.id
        if (
            isinstance(following, ast.Expr)
            and isinstance(following.value, ast.Constant)
            and isinstance(following.value.value, str)
        ):
            docs[name] = " ".join(following.value.value.split())
        else:
            comment = lines[(statement.end_lineno or 1) - 1].rpartition("#")[2].strip()
            docs[name] = comment if "#" in lines[(statement.end_lineno or 1) - 1] else ""
    return docs


def json_schema(cls: type) -> dict[str, Any]:
    """Return a JSON schema of the dataclass: no key required, none unknown, defaults shown."""
    hints = typing.get_type_hints(cls)
    docs = field_docs(cls)
    properties: dict[str, Any] = {}
    for field in dataclasses.fields(cls):
        entry = _schema(hints[field.name])
        if field.default is not dataclasses.MISSING:
            entry["default"] = _plain(field.default)
        elif field.default_factory is not dataclasses.MISSING:
            entry["default"] = _plain(field.default_factory())
        if docs.get(field.name):
            entry["description"] = docs[field.name]
        properties[field.name] = entry
    return {"type": "object", "additionalProperties": False, "properties": properties}


def _schema(hint: Any) -> dict[str, Any]:
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        return {"anyOf": [_schema(choice) for choice in get_args(hint)]}
    if origin is Literal:
        return {"enum": list(get_args(hint))}
    if origin is tuple:
        kinds = get_args(hint)
        if len(kinds) == 2 and kinds[1] is Ellipsis:
            return {"type": "array", "items": _schema(kinds[0])}
        length = len(kinds)
        return {
            "type": "array",
            "prefixItems": [_schema(kind) for kind in kinds],
            "minItems": length,
            "maxItems": length,
        }
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return json_schema(hint)
    names = {bool: "boolean", int: "integer", float: "number", str: "string", type(None): "null"}
    if hint in names:
        return {"type": names[hint]}
    if hint is Any:
        return {}
    raise TypeError(f"settings of type {hint!r} are not supported")


def read_settings(cls: type[T], path: str | os.PathLike[str]) -> T:
    """Read the dataclass from a stage's JSON file, such as `results/<run>/config/cam.json`."""
    return from_dict(cls, read_json(path), where=os.fspath(path))
