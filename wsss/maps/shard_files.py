"""Shards on disk: the folder that one job writes, and how those of all jobs become the results.

A shard is a folder with its part of each of the stage's results, such as `labels/` with PNGs and
`walked.h5`, and with `shard.json`, which says which part of what it is and holds the SHA-256 of
every file. What is put together has the same bytes as what a single job writes, in whatever number
of shards: the images are written in the order in which that one job would have written them.
"""

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

from wsss.errors import UserError
from wsss.files import atomic_directory, checked_name, read_json, write_json
from wsss.files.marks import MARK
from wsss.maps.map_store import MapStore, MapStoreWriter
from wsss.maps.shards import Shard, parse_shard
from wsss.runtime.names import NameMap
from wsss.runtime.progress import progress

RECORD = "shard.json"
RECORD_VERSION = 1
# What the writer of a map store adds by itself.
_OWN_ATTRIBUTES = ("format", "format_version", "upsampling")


@dataclass(frozen=True)
class _Found:
    folder: Path
    shard: Shard
    files: NameMap

    def part(self, name: str) -> Iterator[tuple[Path, str]]:
        """Yield the files of one result, in order: path, and name within that result."""
        for file in self.files:
            if file.startswith(f"{name}/"):
                yield self.folder / file, file.removeprefix(f"{name}/")


def is_store(name: str) -> bool:
    """Say whether a result is a map store, by its name; otherwise it is a folder of files."""
    return name.endswith(".h5")


def record_shard(folder: Path, shard: Shard, made_of: Mapping[str, str]) -> None:
    """Complete a shard: write down what it is.

    Args:
        folder: The shard, with its part of each result.
        shard: Which part it is.
        made_of: What decides the results (settings, code, inputs), each by a fingerprint; shards
            go together only where these are the same.
    """
    paths = (p for p in folder.rglob("*") if p.is_file() and p.name != MARK)
    files = {path.relative_to(folder).as_posix(): _sha256(path) for path in paths}
    record = {"version": RECORD_VERSION, "shard": str(shard), "made_of": made_of, "files": files}
    write_json(folder / RECORD, record)


def merge_shards(
    folders: Sequence[Path], outputs: Mapping[str, Path], made_of: Mapping[str, str]
) -> None:
    """Put shards together.

    Args:
        folders: All shards of one stage.
        outputs: Name of each result in the shards -> where it goes. Names that end in `.h5` are
            map stores, the others folders.
        made_of: As the shards were recorded with.

    Raises:
        UserError: A shard is missing, damaged, one of another division, or made of something else.
    """
    shards = _read_all(folders, made_of)
    for each in shards:
        _check_files(each)
    with ExitStack() as stack:
        for name, output in outputs.items():
            if is_store(name):
                _merge_stores([each.folder / name for each in shards], output)
            else:
                target = stack.enter_context(atomic_directory(output))
                for each in shards:
                    for source, file in each.part(name):
                        _link(source, target / file)


def _read_all(folders: Sequence[Path], made_of: Mapping[str, str]) -> list[_Found]:
    shards = sorted((_read(each, made_of) for each in folders), key=lambda each: each.shard.number)
    totals = {each.shard.total for each in shards}
    numbers = [each.shard.number for each in shards]
    if len(totals) != 1 or numbers != list(range(1, max(totals) + 1)):
        raise UserError(
            f"these are not all shards of one stage: {', '.join(str(s.shard) for s in shards)}",
            where=", ".join(map(str, folders)),
            expected="1/N, 2/N, ... N/N, each once",
            fix="make those that are missing, with --shard I/N",
        )
    return shards


def _read(folder: Path, made_of: Mapping[str, str]) -> _Found:
    if not (folder / RECORD).is_file():
        raise UserError(
            "this shard is missing or incomplete",
            where=folder,
            expected=f"a folder with {RECORD}, which a finished job leaves",
            fix=_again(folder),
        )
    try:
        record: Any = read_json(folder / RECORD)
    except UserError as error:
        raise UserError(error.found, where=error.where, fix=_again(folder)) from None
    if not isinstance(record, dict) or record.get("version") != RECORD_VERSION:
        raise UserError(
            "this shard is of another version", where=folder / RECORD, fix=_again(folder)
        )
    then, files = record.get("made_of"), record.get("files")
    if not (_texts(then) and _texts(files) and isinstance(record.get("shard"), str)):
        raise UserError(
            "this is not what a finished job leaves", where=folder / RECORD, fix=_again(folder)
        )
    for name in files:
        checked_name(name, where=folder / RECORD)
    different = [key for key in sorted({*made_of, *then}) if made_of.get(key) != then.get(key)]
    if different:
        raise UserError(
            f"this shard was made of something else: {', '.join(different)} differ",
            where=folder,
            expected="the settings, code and inputs that the shards are put together with",
            fix=_again(folder),
        )
    try:
        shard = parse_shard(record["shard"])
    except UserError as error:
        raise UserError(error.found, where=folder / RECORD, fix=_again(folder)) from None
    # Not as it was read: there may be a million, in many shards.
    return _Found(folder, shard, NameMap(files.items()))


def _texts(values: Any) -> TypeGuard[dict[str, str]]:
    return isinstance(values, dict) and all(isinstance(each, str) for each in values.values())


def _check_files(shard: _Found) -> None:
    for name, digest in shard.files.items():
        path = shard.folder / name
        if not path.resolve().is_relative_to(shard.folder.resolve()):
            # Through a link.
            raise UserError("a file of this shard lies outside of it", where=path)
        if not path.is_file():
            raise UserError("a file of this shard is gone", where=path, fix=_again(shard.folder))
        if _sha256(path) != digest:
            raise UserError(
                "this file of a shard is damaged: it is not what was written",
                where=path,
                expected=f"SHA-256 {digest}",
                fix=_again(shard.folder),
            )


def _again(folder: Path) -> str:
    place = shlex.quote(str(folder))
    return f"delete it and start again; only it is made again:  rm -r {place}"


def _merge_stores(paths: Sequence[Path], output: Path) -> None:
    with MapStore(paths) as parts:
        attributes = {k: v for k, v in parts.attributes.items() if k not in _OWN_ATTRIBUTES}
        with MapStoreWriter(
            output, classes=parts.classes, attributes=attributes, upsampling=parts.upsampling
        ) as whole:
            names = progress(parts.names, total=len(parts.names), description=f"merge {output}")
            for name in names:
                stored = parts.read(name)
                whole.add(name, stored.class_indices.tolist(), stored.maps, stored.size)


def _link(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:
        # Not every file system has hard links.
        shutil.copyfile(source, target)


def _sha256(path: Path) -> str:
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
