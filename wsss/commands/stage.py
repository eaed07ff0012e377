"""The command of a stage, derived from its function: one option a parameter.

An option that nothing uses cannot come about.
"""

from __future__ import annotations

import argparse
import dataclasses
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from wsss.commands import sharding
from wsss.commands.options import read_config
from wsss.commands.parameters import Parameter, add, fields_of, is_compute, parameters, read_given
from wsss.errors import UserError
from wsss.maps.shards import Shard
from wsss.runtime.stage_process import stage_process
from wsss.stages import Stage


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


def run(stage: Stage, function: Callable[..., Any], options: argparse.Namespace) -> None:
    """Run a stage with what was given: alone on its output, tidy when stopped."""
    values = read_given(options)
    if "output" not in values:
        _work(stage, function, values, options)
    else:
        others = _others(stage, values)
        with stage_process(stage.command, values["output"], others, trains=stage.trains):
            _work(stage, function, values, options)


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
