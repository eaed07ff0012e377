"""The command of a stage, derived from its function: one option a parameter.

A parameter's annotation says what the option takes, its line under `Args:` in the docstring what it
is for. An option that nothing uses cannot come about.
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

from wsss.commands import sharding
from wsss.commands.options import read_config
from wsss.errors import UserError
from wsss.maps.shards import Shard
from wsss.runtime.stage_process import stage_process
from wsss.stages import Stage

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


def configure(stage: Stage, parser: argparse.ArgumentParser) -> None:
    """Add the options of a stage's function to its subcommand."""
    function = stage.load()
    machine = parser.add_argument_group("this machine")
    for each in parameters(function):
        if is_compute(each.type):
            for field in fields_of(each.type):
                add(machine, field)
        elif each.type is Shard:
            sharding.add_shards(parser)
        elif each.name == "config":
            where = f"its settings: results/<run>/config/{stage.settings}.json"
            add(parser, dataclasses.replace(each, type=Path, help=where))
        elif each.name == "workers":
            add(machine, each)
        else:
            # One part of the results is one folder, whatever is in it.
            in_part = stage.shardable and each.name in list(stage.outputs)[1:]
            add(parser, dataclasses.replace(each, default=None) if in_part else each)
    for name, manifest in stage.manifests.items():
        text = f"also write the SHA-256 of every file in --{name.replace('_', '-')} here"
        add(parser, Parameter(manifest, Path, None, text))
    parser.set_defaults(run=lambda options: run(stage, function, options))


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
    elif typing.get_origin(kind) is Mapping or kind == Mapping[str, Path]:
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


def run(stage: Stage, function: Callable[..., Any], options: argparse.Namespace) -> None:
    """Run a stage with what was given: alone on its output, tidy when stopped."""
    values = read_given(options)
    if "output" not in values:
        _work(stage, function, values, options)
    else:
        others = _others(stage, values)
        with stage_process(stage.command, values["output"], others, trains=stage.trains):
            _work(stage, function, values, options)


def read_given(options: argparse.Namespace) -> dict[str, Any]:
    """Return the values of the options that `add` made, as far as they were given."""
    return {
        name.removeprefix(PREFIX): value
        for name, value in vars(options).items()
        if name.startswith(PREFIX)
    }


def _others(stage: Stage, given: Mapping[str, Any]) -> list[Path]:
    """Return what a stage writes beside its --output."""
    names = [*list(stage.outputs)[1:], *stage.manifests.values()]
    paths = [given[name] for name in names if name in given]
    paths += [given["output"].with_name(name) for name in stage.beside]
    if "work_dir" in given:
        paths += [given["work_dir"] / name for name in ("checkpoint.pt", "metrics.jsonl")]
    return paths


def _work(
    stage: Stage,
    function: Callable[..., Any],
    given: Mapping[str, Any],
    options: argparse.Namespace,
) -> None:
    values = _values(stage, function, given)
    if stage.shardable:
        sharding.run(stage, function, values, shard=options.shard, merge=options.merge)
    else:
        function(**values)
    for name, manifest in stage.manifests.items():
        if manifest in given:
            from wsss.provenance import write_manifest

            write_manifest(given[name], given[manifest])


def _values(stage: Stage, function: Callable[..., Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of a stage's function."""
    values: dict[str, Any] = {}
    for each in parameters(function):
        if is_compute(each.type):
            names = [field.name for field in dataclasses.fields(each.type)]
            values[each.name] = each.type(**{name: given[name] for name in names if name in given})
        elif each.name not in given:
            continue
        elif each.name == "config":
            values["config"] = read_config(stage.settings or stage.name, given["config"])
        elif typing.get_origin(each.type) is Mapping:
            values[each.name] = named_paths(given[each.name])
        else:
            values[each.name] = given[each.name]
    return values


def named_paths(words: Sequence[str]) -> dict[str, Path]:
    """Return name -> path of words like `name=path`, in order.

    Raises:
        UserError: A word has another form, or a name comes twice.
    """
    paths: dict[str, Path] = {}
    for word in words:
        name, equals, path = word.partition("=")
        if not (name and equals and path) or name in paths:
            raise UserError(f"'{word}' is not NAME=PATH, or comes twice", expected="NAME=PATH")
        paths[name] = Path(path)
    return paths
