"""Stages that several jobs share: all of the work, one part of it, or the parts put together."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from wsss.errors import UserError
from wsss.maps.shards import parse_shard
from wsss.stages import Stage, part_name


def add_shards(parser: argparse.ArgumentParser) -> None:
    """Add `--shard` and `--merge`."""
    group = parser.add_argument_group("several jobs")
    either = group.add_mutually_exclusive_group()
    either.add_argument(
        "--shard",
        metavar="I/N",
        help="make only part I of N; --output is then a folder for all of that part's results",
    )
    either.add_argument(
        "--merge",
        nargs="+",
        type=Path,
        metavar="FOLDER",
        help="compute nothing, put these parts together; the result is that of a single job",
    )


def run(
    stage: Stage,
    function: Callable[..., Any],
    values: Mapping[str, Any],
    *,
    shard: str | None,
    merge: Sequence[Path] | None,
) -> None:
    """Do all of a stage's work, or one part of it, or put the parts together.

    Args:
        stage: The stage.
        function: Its function.
        values: The function's arguments, as far as they were given; in a part, `output` is the
            part's folder.
        shard: `I/N`: which part.
        merge: The folders of all parts.

    Raises:
        UserError: `shard` is not I/N, an output is missing or one too many, or parts do not go
            together.
    """
    names = [
        name
        for name in stage.outputs
        if name not in stage.only_if or getattr(values["config"], stage.only_if[name])
    ]
    if shard is not None:
        _part(stage, function, values, names, shard)
    elif merge:
        _merge(stage, _paths(stage, values, names), values, merge)
    else:
        _paths(stage, values, [name for name in names if name not in stage.only_if])
        function(**values)


def _part(
    stage: Stage,
    function: Callable[..., Any],
    values: Mapping[str, Any],
    names: Sequence[str],
    shard: str,
) -> None:
    from wsss.files import atomic_directory
    from wsss.maps.shard_files import record_shard

    part = parse_shard(shard)
    for name in list(stage.outputs)[1:]:
        if name in values:
            raise UserError(
                f"{_option(name)} is given with --shard",
                expected="--output alone, the folder of all of that part's results",
                fix=f"take {_option(name)} out; it is for the whole, or for --merge",
            )
    made_of = _made_of(stage, values)
    with atomic_directory(values["output"]) as folder:
        paths = {name: folder / part_name(stage.outputs[name]) for name in names}
        function(**{**values, **paths}, shard=part)
        record_shard(folder, part, made_of)


def _merge(
    stage: Stage, paths: Mapping[str, Path], values: Mapping[str, Any], merge: Sequence[Path]
) -> None:
    from wsss.maps.shard_files import merge_shards
    from wsss.runtime.heartbeat import heartbeat_file

    parts = {part_name(stage.outputs[name]): path for name, path in paths.items()}
    merge_shards(merge, parts, _made_of(stage, values))
    for folder in merge:
        # Of these jobs nothing more is to be told.
        heartbeat_file(folder).unlink(missing_ok=True)


def _paths(stage: Stage, values: Mapping[str, Any], names: Sequence[str]) -> dict[str, Path]:
    for name in names:
        if name not in values:
            raise UserError(
                f"{_option(name)} is not given",
                where=f"wsss {stage.command}",
                expected="a path for each of the results; only one part of them needs none",
            )
    return {name: values[name] for name in names}


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _made_of(stage: Stage, values: Mapping[str, Any]) -> dict[str, str]:
    from wsss.files import content_hash, file_digest
    from wsss.provenance import closure_hash, file_fingerprint
    from wsss.runtime.registry import chosen_modules
    from wsss.runtime.settings import to_dict

    made = {
        "settings": content_hash(to_dict(values["config"])),
        "code": closure_hash(stage.module, *chosen_modules(values["config"])),
        "index": file_digest(values["index"]),
    }
    files = [name for name in stage.inputs if name != "index" and values.get(name) is not None]
    return {**made, **{name: file_fingerprint(values[name]) for name in files}}
