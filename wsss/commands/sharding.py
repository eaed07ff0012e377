"""Options of the stages that several jobs can share."""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from wsss.errors import UserError
from wsss.maps.shards import WHOLE, Shard, parse_shard

# Makes one part of a stage's results, under the paths given by their names.
Work = Callable[[Mapping[str, Path], Shard], None]


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
    options: argparse.Namespace,
    work: Work,
    *,
    outputs: Mapping[str, Path | None],
    module: str,
    settings: Any,
    inputs: tuple[str, ...],
) -> None:
    """Do all of a stage's work, or one part of it, or put the parts together.

    Args:
        options: With what `add_shards` read; `--output`, which is a part's folder.
        work: Makes the results.
        outputs: Name in a part -> where that result goes; names that end in `.h5` are map stores,
            the others folders.
        module: The stage's module, whose code decides the results.
        settings: The stage's settings, which do too.
        inputs: Options with the files that do.

    Raises:
        UserError: `--shard` is not I/N, an output is not given, or parts do not go together.
    """
    if options.shard is not None:
        from wsss.files import atomic_directory
        from wsss.maps.shard_files import record_shard

        shard = parse_shard(options.shard)
        made_of = _made_of(options, module, settings, inputs)
        with atomic_directory(options.output) as folder:
            work({name: folder / name for name in outputs}, shard)
            record_shard(folder, shard, made_of)
        return
    paths: dict[str, Path] = {}
    for name, path in outputs.items():
        if path is None:
            raise UserError(f"the path for '{name}' is not given", expected="an option with it")
        paths[name] = path
    if options.merge:
        from wsss.maps.shard_files import merge_shards
        from wsss.runtime.heartbeat import heartbeat_file

        merge_shards(options.merge, paths, _made_of(options, module, settings, inputs))
        for folder in options.merge:
            # Of these jobs nothing more is to be told.
            heartbeat_file(folder).unlink(missing_ok=True)
    else:
        work(paths, WHOLE)


def _made_of(
    options: argparse.Namespace, module: str, settings: Any, inputs: tuple[str, ...]
) -> dict[str, str]:
    from wsss.files import content_hash
    from wsss.provenance import closure_hash, file_fingerprint
    from wsss.runtime.settings import to_dict

    index = hashlib.sha256(options.index.read_bytes()).hexdigest()[:16]
    found = {"settings": content_hash(to_dict(settings)), "code": closure_hash(module)}
    given = {name: getattr(options, name) for name in inputs}
    files = {name: file_fingerprint(path) for name, path in given.items() if path is not None}
    return {**found, "index": index, **files}
