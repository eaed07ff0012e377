"""Options from signatures: a parameter of a function, or a field of a class, is one option.

The annotation says what the option takes, the line under `Args:` or `Attributes:` in the docstring
what it is for.
"""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import re
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Options of a stage are kept under this prefix, apart from what else the parser keeps.
PREFIX = "stage_"


@dataclass(frozen=True)
class Parameter:
    """A parameter of a stage's function, or a field of one that says how to compute.

    Attributes:
        name: Its name.
        type: Its annotation, without `None`.
        default: Its default; `inspect.Parameter.empty`: it must be given.
        help: What it is for.
    """

    name: str
    type: Any
    default: Any
    help: str

    @property
    def option(self) -> str:
        """Its option: `--work-dir`."""
        return f"--{self.name.replace('_', '-')}"

    @property
    def is_required(self) -> bool:
        """Whether the option must be given."""
        return self.default is inspect.Parameter.empty


def described(docstring: str | None, heading: str) -> dict[str, str]:
    """Return name -> text of a section of a docstring in Google's style."""
    lines = inspect.cleandoc(docstring or "").splitlines()
    if heading not in lines:
        return {}
    found: dict[str, str] = {}
    name = ""
    for line in lines[lines.index(heading) + 1 :]:
        if line and not line.startswith(" "):
            break
        start = re.fullmatch(r" {4}(\w+): (.*)", line)
        if start is not None:
            name = start[1]
            found[name] = start[2]
        elif line.strip() and name:
            found[name] += f" {line.strip()}"
    return found


def parameters(function: Callable[..., Any]) -> list[Parameter]:
    """Return the parameters of a stage's function."""
    hints, texts = typing.get_type_hints(function), described(function.__doc__, "Args:")
    return [
        Parameter(name, _without_none(hints[name]), each.default, texts.get(name, ""))
        for name, each in inspect.signature(function).parameters.items()
    ]


def fields_of(cls: type) -> list[Parameter]:
    """Return the fields of a class that says how to compute; its bases describe theirs."""
    texts: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        texts |= described(base.__doc__, "Attributes:")
    hints = typing.get_type_hints(cls)
    return [
        Parameter(each.name, _without_none(hints[each.name]), each.default, texts[each.name])
        for each in dataclasses.fields(cls)
    ]


def is_compute(kind: Any) -> bool:
    """Say whether a parameter of this type says how to compute."""
    # By name, as the class comes with torch, which `wsss index` does without.
    return isinstance(kind, type) and any(
        (base.__module__, base.__name__) == ("wsss.runtime.compute", "Device")
        for base in kind.__mro__
    )


def _without_none(annotation: Any) -> Any:
    if isinstance(annotation, types.UnionType) or typing.get_origin(annotation) is typing.Union:
        kinds = [kind for kind in typing.get_args(annotation) if kind is not type(None)]
        return kinds[0] if len(kinds) == 1 else annotation
    return annotation


def add(group: Any, parameter: Parameter) -> None:
    """Add one option to a parser, or to a group of its options."""
    kind, default = parameter.type, parameter.default
    how: dict[str, Any] = {"required": parameter.is_required, "dest": PREFIX + parameter.name}
    # What is not given is not passed on, so that the function's own default holds.
    how["default"] = argparse.SUPPRESS
    text = re.sub("`([^`]*)`", r"\1", parameter.help).replace("%", "%%")
    if typing.get_origin(kind) is typing.Literal:
        how["choices"] = typing.get_args(kind)
    elif kind is bool:
        how |= {"type": _true_or_false, "metavar": "true|false"}
    elif kind is Path:
        how |= {"type": Path, "metavar": "PATH"}
    elif typing.get_origin(kind) is Mapping:
        how |= {"nargs": "+", "metavar": "NAME=PATH"}
    elif typing.get_origin(kind) is Sequence:
        (inner,) = typing.get_args(kind)
        how |= {"nargs": "+", "type": inner, "metavar": "PATH" if inner is Path else "NAME"}
    elif kind in (int, float, str):
        how |= {"type": kind, "metavar": {int: "N", float: "X", str: "NAME"}[kind]}
    else:
        raise TypeError(f"no option can give {parameter.name}: {kind}")
    if isinstance(default, (str, int, float)):
        shown = str(default).lower() if isinstance(default, bool) else default
        text = f"{text.rstrip('.')} (default: {shown})"
    group.add_argument(parameter.option, help=text, **how)


def _true_or_false(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"'{text}' is neither true nor false")
    return text.lower() == "true"


def read_given(options: argparse.Namespace) -> dict[str, Any]:
    """Return the values of the options that `add` made, as far as they were given."""
    return {
        name.removeprefix(PREFIX): value
        for name, value in vars(options).items()
        if name.startswith(PREFIX)
    }
