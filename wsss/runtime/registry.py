"""Registries: what is chosen by its name, each with settings that it alone has.

An entry is a record that imports nothing heavy: it names its code as `module:name`, and reading a
configuration only looks at its settings. Modules of one package, and files that `plugins:` names,
register theirs when they are imported.
"""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler, ValidationInfo
from pydantic.fields import FieldInfo
from pydantic_core import core_schema

from wsss.errors import UserError
from wsss.runtime.settings import (
    PARTIAL,
    Settings,
    check,
    nested,
    parse,
    place,
    to_dict,
    unknown_key,
)


@dataclass(frozen=True)
class Record:
    """What a registry needs to know of each thing that it holds.

    Attributes:
        name: What people write.
        description: A few words for the comment in config.yaml.
        settings: Its settings; the registry's key is a field of them, `Literal[name] = name`.
    """

    name: str
    description: str
    settings: type[Settings]


E = TypeVar("E", bound=Record)


class Registry(Generic[E]):
    """Records by name, and settings as the union over them.

    As an annotation, `head: Annotated[HeadSettings, HEADS]`, it makes a field this union.

    Args:
        kind: What is registered, for messages: "CAM method".
        about: The comment of the section in config.yaml.
        key: The setting that chooses: "method".
        package: The package whose modules register the project's own.
        suffix: How the names of those modules end.
        default: What is chosen where the key is left out; None: it must be given.
    """

    _all: ClassVar[list[Registry[Any]]] = []

    def __init__(
        self,
        kind: str,
        *,
        about: str,
        key: str,
        package: str,
        suffix: str = "",
        default: str | None = None,
    ) -> None:
        self.kind, self.about, self.key, self.default = kind, about, key, default
        self._package, self._suffix = package, suffix
        self._entries: dict[str, E] = {}
        self._complete = False
        Registry._all.append(self)

    @classmethod
    def record_of(cls, settings: Settings) -> Any:
        """Return the record that settings are of, of whichever registry; None: of none."""
        for registry in cls._all:
            for entry in registry._entries.values():
                if entry.settings is type(settings):
                    return entry
        return None

    def register(self, entry: E) -> E:
        """Add a record.

        Raises:
            UserError: Another has its name.
        """
        if entry.name in self._entries:
            there = self._entries[entry.name].settings.__module__
            raise UserError(
                f"there are two of the {self.kind} '{entry.name}'",
                where=f"{there} and {entry.settings.__module__}",
                fix="give one of them another name",
            )
        self._entries[entry.name] = entry
        return entry

    def entries(self) -> Mapping[str, E]:
        """Return all records, in the order of their names."""
        if not self._complete:
            self._complete = True
            package = importlib.import_module(self._package)
            for module in pkgutil.iter_modules(package.__path__):
                if module.name.endswith(self._suffix):
                    importlib.import_module(f"{self._package}.{module.name}")
        return dict(sorted(self._entries.items()))

    def get(self, name: object, *, where: str) -> E:
        """Return a record.

        Raises:
            UserError: There is none of that name; the message names the nearest.
        """
        entries = self.entries()
        if not isinstance(name, str) or name not in entries:
            raise unknown_key(name, entries, where=where, kind=self.kind)
        return entries[name]

    def chosen(self, values: Any, *, where: str) -> E:
        """Return the record that settings choose.

        Raises:
            UserError: They choose none, or one that there is not.
        """
        if not isinstance(values, Mapping):
            parse(Settings, values, where=where)  # says what is wrong
        name = values.get(self.key, self.default)
        if name is None:
            raise UserError(
                f"the setting '{self.key}' is missing",
                where=place(where, self.key),
                expected=f"one of: {', '.join(sorted(self.entries()))}",
            )
        return self.get(name, where=place(where, self.key))

    def parse(self, values: Any, *, where: str) -> Settings:
        """Build the settings of the chosen record; see `wsss.runtime.settings.parse`."""
        entry = self.chosen(values, where=where)
        return parse(entry.settings, {**values, self.key: entry.name}, where=where)

    def check(self, values: Any, *, where: str) -> None:
        """Check an incomplete section, whatever record it is for.

        Raises:
            UserError: A key that no record has, or a wrong type.
        """
        if not isinstance(values, Mapping):
            parse(Settings, values, where=where)
        if self.key in values:
            self.get(values[self.key], where=place(where, self.key))
        classes = [entry.settings for entry in self.entries().values()]
        for key, value in values.items():
            owner = next((cls for cls in classes if key in cls.model_fields), None)
            if owner is None:
                known = {name for cls in classes for name in cls.model_fields}
                raise unknown_key(key, known, where=place(where, key))
            if key != self.key:
                check(owner, {key: value}, where=where)

    def _inner(self, value: Any, info: ValidationInfo) -> Any:
        """Validate the field that is annotated with this registry."""
        if isinstance(value, Settings):
            return value
        try:
            if info.context == PARTIAL:
                self.check(value, where="")
                return value
            return self.parse(value, where="")
        except UserError as error:
            raise nested(error) from None

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> core_schema.CoreSchema:
        return core_schema.with_info_plain_validator_function(
            self._inner,
            serialization=core_schema.plain_serializer_function_ser_schema(to_dict),
        )

    def __get_pydantic_json_schema__(
        self, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        """Return an object with the keys of all records together."""
        properties: dict[str, Any] = {}
        for entry in self.entries().values():
            kind = entry.settings
            made = kind.__get_pydantic_json_schema__(kind.__pydantic_core_schema__, handler)
            whole = handler.resolve_ref_schema(made)
            # A key that several have is described as the record has it that a run gets unasked.
            known = whole["properties"]
            properties.update(known if entry.name == self.default else {**known, **properties})
        said = ", ".join(
            f"`{entry.name}` ({entry.description})" for entry in self.entries().values()
        )
        properties[self.key] = {"enum": list(self.entries()), "description": f"{said}."}
        if self.default is not None:
            properties[self.key]["default"] = self.default
        return {
            "type": "object",
            "description": self.about,
            "additionalProperties": False,
            "properties": properties,
        }


# What a stage's or a field's settings are: of one class, or of the chosen record's.
Kind = type[Settings] | Registry[Any]


def parse_kind(kind: Kind, values: Any, *, where: str) -> Settings:
    """Build settings of a kind; see `wsss.runtime.settings.parse`."""
    return (
        kind.parse(values, where=where)
        if isinstance(kind, Registry)
        else parse(kind, values, where=where)
    )


def used(
    kind: Kind,
    merged: Mapping[str, Any],
    own: Mapping[str, Any],
    *,
    where: str,
    idle: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Return those of a run's merged settings that have an effect.

    What a run inherits for another method is left out, so that it changes nothing here.

    Args:
        kind: Of which settings they are.
        merged: Values from all layers.
        own: Which of them the run itself sets.
        where: The place named in errors.
        idle: What the settings around these leave without effect, as `Settings.idle` says it.

    Raises:
        UserError: The run itself sets what has no effect.
    """
    cls, kept = kind, {}
    if isinstance(kind, Registry):
        entry = kind.chosen(merged, where=where)
        cls, merged = entry.settings, {**merged, kind.key: entry.name}
    assert isinstance(cls, type)
    idle = {**cls.idle(merged), **(idle or {})}
    for key, value in merged.items():
        here = place(where, key)
        if key in idle:
            if key in own:
                raise UserError(
                    f"'{key}' has no effect: {idle[key]}", where=here, fix="take it out"
                )
        elif key in cls.model_fields:
            inner = inner_kind(cls.model_fields[key])
            if inner is not None and isinstance(value, Mapping):
                mine = own.get(key)
                value = used(
                    inner,
                    value,
                    mine if isinstance(mine, Mapping) else {},
                    where=here,
                    idle=_below(key, idle),
                )
            kept[key] = value
        elif key in own:
            assert isinstance(kind, Registry)
            having = [e.name for e in kind.entries().values() if key in e.settings.model_fields]
            raise UserError(
                f"the {kind.kind} '{merged[kind.key]}' has no setting '{key}'",
                where=here,
                expected=f"one of: {', '.join(sorted(cls.model_fields))}",
                fix=f"take it out, or set {place(where, kind.key)} to {' or '.join(having)}",
            )
    return kept


def _below(key: str, idle: Mapping[str, str]) -> dict[str, str]:
    return {
        place.removeprefix(f"{key}."): reason
        for place, reason in idle.items()
        if place.startswith(f"{key}.")
    }


def inner_kind(field: FieldInfo) -> Kind | None:
    """Return the kind of a field that holds settings; None: it holds a plain value."""
    for rule in field.metadata:
        if isinstance(rule, Registry):
            return rule
    annotation: Any = field.annotation
    is_settings = isinstance(annotation, type) and issubclass(annotation, Settings)
    return annotation if is_settings else None


def chosen_modules(settings: Settings) -> tuple[str, ...]:
    """Return the modules that settings choose: those with the code that they or their record name.

    What loads code by name runs these, and no import tells so. Settings without a record name
    theirs as `code`.
    """
    found: set[str] = set()
    entry = Registry.record_of(settings)
    if entry is not None:
        found.add(entry.settings.__module__)
        for value in vars(entry).values():
            if isinstance(value, str) and re.fullmatch(r"[\w.]+:\w+", value):
                found.add(value.partition(":")[0])
            elif callable(value):
                found.add(value.__module__)
    code: str | None = getattr(settings, "code", None)
    if code is not None:
        found.add(code.partition(":")[0])
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        if isinstance(value, Settings):
            found.update(chosen_modules(value))
    return tuple(sorted(found))


def load_code(path: str) -> Any:
    """Import what a record names, `module:name`."""
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)
