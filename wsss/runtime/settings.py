"""Settings: frozen pydantic models, with errors that name the place.

The stages' settings are subclasses of `Settings`. This module knows no stage: it turns what a YAML
or JSON file holds into such a model, or says where it is wrong, what was expected and which known
key is nearest.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    ValidationError,
)
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails, PydanticCustomError, core_schema

from wsss.errors import UserError

_SCIENTIFIC = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)[eE][+-]?\d+")


def _number(value: Any) -> Any:
    # YAML 1.1 takes `1e-4` for a text, as it wants a dot; nobody means a text by it.
    return float(value) if isinstance(value, str) and _SCIENTIFIC.fullmatch(value) else value


# The kinds of numbers that settings are, each with its range.
Number = Annotated[float, BeforeValidator(_number)]
Positive = Annotated[float, Field(gt=0), BeforeValidator(_number)]
NonNegative = Annotated[float, Field(ge=0), BeforeValidator(_number)]
Fraction = Annotated[float, Field(ge=0, le=1), BeforeValidator(_number)]
BelowOne = Annotated[float, Field(ge=0, lt=1), BeforeValidator(_number)]
Count = Annotated[int, Field(ge=1)]
# What PyTorch's generators take.
Seed = Annotated[int, Field(ge=-(2**63), lt=2**64)]
Precision = Literal["auto", "float32", "bfloat16"]


class Settings(BaseModel):
    """Frozen settings; a docstring below a field describes it.

    Raises:
        UserError: An unknown or missing key, a wrong type, or an impossible value.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
    )

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise _explained(type(self), error, where="") from None

    @classmethod
    def idle(cls, values: Mapping[str, Any]) -> Mapping[str, str]:
        """Return the keys that other values leave without effect, each with the reason.

        A key of settings within these is written with its place: `acr.balance`.

        Args:
            values: What is set of these settings; the defaults stand for the rest.
        """
        return {}

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        """Return what pydantic makes of it, with the descriptions below the fields."""
        from wsss.runtime.descriptions import descriptions

        made = handler(schema)
        described = descriptions(cls)
        for name, entry in handler.resolve_ref_schema(made).get("properties", {}).items():
            if name in described:
                entry.setdefault("description", described[name])
        return made

    # Pydantic's word for an `__init__` that inner models need not go through, so that the error of
    # an inner one reaches the outer with its place.
    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined]


S = TypeVar("S", bound=Settings)
# The context of a validation that judges an incomplete section.
PARTIAL = {"partial": True}


def impossible(
    found: str, *, key: str = "", expected: str | None = None, fix: str | None = None
) -> PydanticCustomError:
    """Build what a validator raises about values that each are possible, but not together.

    Args:
        found: What was found, in one sentence.
        key: The setting it is said of, below the place of the validated settings.
        expected: What would have been right.
        fix: What to do about it.
    """
    context = {"found": found, "key": key, "expected": expected, "fix": fix}
    return PydanticCustomError("impossible", "{found}", context)


def nested(error: UserError) -> PydanticCustomError:
    """Build what a validator raises about settings inside others, of a place below its own."""
    return PydanticCustomError("nested", "{error}", {"error": error})


def place(where: str, *steps: int | str) -> str:
    """Return the name of a place below another: `runs.voc` and `cam` are `runs.voc.cam`."""
    for step in steps:
        where += f"[{step}]" if isinstance(step, int) else f".{step}" if where else step
    return where


def parse(cls: type[S], values: Any, *, where: str) -> S:
    """Build settings from what a file holds.

    Args:
        cls: Their class.
        values: Keys and values; keys left out take the class's defaults.
        where: The place named in errors, such as `runs.voc.cam`.

    Raises:
        UserError: An unknown or missing key, a wrong type, or an impossible value.
    """
    try:
        return cls.model_validate_json(_text(values))
    except ValidationError as error:
        raise _explained(cls, error, where=where) from None


def check(cls: type[Settings], values: Any, *, where: str) -> None:
    """Check keys, types and ranges of an incomplete section, such as a run's overrides.

    What depends on several settings at once is left to `parse` on the merged whole.

    Raises:
        UserError: An unknown key, a wrong type, or a number out of its range.
    """
    try:
        cls.model_validate_json(_text(values), context=PARTIAL)
    except ValidationError as error:
        for detail in error.errors(include_url=False):
            if detail["type"] not in ("missing", "impossible"):
                raise _told(cls, detail, where) from None


def to_dict(settings: Settings) -> dict[str, Any]:
    """Return settings as plain JSON values: tuples become lists, every key is present."""
    return settings.model_dump(mode="json")


def replace(settings: S, **changes: Any) -> S:
    """Return settings with some changed, checked again as a whole; a list will do for a tuple."""
    given = {key: tuple(v) if isinstance(v, list) else v for key, v in changes.items()}
    return type(settings)(**{**dict(settings), **given})


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


def _text(values: Any) -> str:
    # As JSON, whose lists and mappings are taken for tuples and settings, and nothing for a number
    # that is none. YAML's dates, the only values that JSON lacks, are texts.
    return json.dumps(values, default=str)


def _explained(cls: type[Settings], error: ValidationError, *, where: str) -> UserError:
    return _told(cls, error.errors(include_url=False)[0], where)


_WORDS = {
    "bool_type": "true or false",
    "finite_number": "a finite number",
    "float_type": "a number",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "path_type": "a path",
    "string_type": "a text",
    "tuple_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping of settings",
}


def _told(cls: type[Settings], detail: ErrorDetails, where: str) -> UserError:
    """Put an error of pydantic's into the words of this project."""
    kind, value, context = detail["type"], detail["input"], detail.get("ctx", {})
    # Which alternative of a union was tried, and that a key is meant, are no places.
    loc = tuple(step for step in detail["loc"] if str(step)[:1] not in ("<", "["))
    here, key = place(where, *loc), place("", *loc[-2:]).rpartition(".")[2]
    owner, field = _field(cls, loc)
    if kind == "nested":
        inner: UserError = context["error"]
        here = place(here, *filter(None, [inner.where]))
        return UserError(inner.found, where=here, expected=inner.expected, fix=inner.fix)
    if kind == "impossible":
        here = place(here, *filter(None, [context.pop("key")]))
        return UserError(context.pop("found"), where=here or None, **context)
    if kind == "extra_forbidden":
        return unknown_key(key, owner.model_fields, where=here)
    if kind == "missing":
        choices = get_args(field.annotation) if field is not None else ()
        expected = f"one of: {', '.join(map(str, choices))}" if choices else None
        return UserError(f"the setting '{key}' is missing", where=here, expected=expected)
    if kind == "literal_error":
        words = re.findall(r"'([^']*)'", context["expected"]) or [context["expected"]]
        guess = nearest(str(value), words)
        return UserError(
            f"{_shown(value)} is not one of the possible values",
            where=here,
            expected="one of: " + ", ".join(words),
            fix=f"did you mean '{guess}'?" if guess else None,
        )
    if kind in ("too_short", "too_long"):
        side, number = ("least", "min_length") if kind == "too_short" else ("most", "max_length")
        count = "one" if context[number] == 1 else context[number]
        expected = f"a list of at {side} {count}"
        return UserError(f"{key} is {_shown(value)}", where=here, expected=expected)
    if kind in ("greater_than", "greater_than_equal", "less_than", "less_than_equal"):
        return UserError(f"{key} is {value}", where=here, expected=_range(field, context))
    if kind in _WORDS:
        named = {type(None): "null", dict: "a mapping", list: "a list"}.get(type(value))
        shown = named or f"{_shown(value)} ({type(value).__name__})"
        return UserError(f"{shown} is not {_WORDS[kind]}", where=here, expected=_WORDS[kind])
    return UserError(f"{key} is {_shown(value)}: {detail['msg']}", where=here)


def _field(
    cls: type[Settings], loc: tuple[int | str, ...]
) -> tuple[type[Settings], FieldInfo | None]:
    """Return the settings class that a place lies in, and its field there if it is one."""
    owner, field, is_key = cls, None, False
    for number, step in enumerate(loc, 1):
        if isinstance(step, str) and not is_key:
            field = owner.model_fields.get(step)
        if field is None:
            break
        if number < len(loc):
            hints = list(_hints(field.annotation))
            # A mapping's own key comes next, and only then the settings in it.
            is_key = not is_key and any(get_origin(hint) is dict for hint in hints)
            found = [one for one in hints if isinstance(one, type) and issubclass(one, Settings)]
            owner = found[0] if found else owner
    return owner, field


def _hints(hint: Any) -> Iterator[Any]:
    yield hint
    for part in get_args(hint):
        yield from _hints(part)


def _range(field: FieldInfo | None, context: Mapping[str, Any]) -> str:
    """Say in words which numbers a field takes, or at least the bound that was missed."""
    bounds, hint = dict(context), ""
    parts = [field, *_hints(field.annotation)] if field else []
    for rule in (rule for part in parts if isinstance(part, FieldInfo) for rule in part.metadata):
        for kind, name in ((Gt, "gt"), (Ge, "ge"), (Lt, "lt"), (Le, "le")):
            if isinstance(rule, kind):
                bounds[name] = getattr(rule, name)
        hint = f": {rule}" if isinstance(rule, str) else hint
    low = f"above {bounds['gt']:g}, " if "gt" in bounds else ""
    high = f"below {bounds['lt']:g}" if "lt" in bounds else ""
    if "le" in bounds:
        high = f"{bounds['le']:g}" if "ge" in bounds else f"at most {bounds['le']:g}"
    if "ge" in bounds:
        low = f"{bounds['ge']:g} " + ("to " if high else "or more")
    return (low + high).rstrip(", ") + hint


def _shown(value: Any) -> str:
    return repr(value) if isinstance(value, str) else str(value)
