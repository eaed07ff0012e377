"""Writing settings into config.local.yaml, whose comments and order stay as they are."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from wsss.errors import UserError
from wsss.files import write_text
from wsss.project.runs import merge
from wsss.project.yaml_files import is_plain_text, parse_yaml, read_yaml

HEADER = "# What this machine alone says, laid over config.yaml; see docs/own-pictures.md.\n"


def update_local(path: Path, changes: Mapping[str, Any]) -> None:
    """Lay settings over those in a local configuration file; a missing file is made.

    Raises:
        UserError: The file is a link to nothing, or not YAML, or what would be written does not
            say the same as before and the changes; then nothing is written.
    """
    # Only the two commands that write settings need it.
    from ruamel.yaml import YAML

    # Through a link: put in its place, the file would no longer be where somebody keeps it.
    link, path = path, Path(os.path.realpath(path))
    if link.is_symlink() and not path.exists():
        raise UserError(
            "this link leads to no file",
            where=link,
            expected=f"a file at {path}",
            fix="mount what it lies on, or take the link away",
        )
    before = read_yaml(path) if path.exists() else {}
    document = YAML()
    document.preserve_quotes = True
    document.width = 100
    text = path.read_text(encoding="utf-8") if path.exists() else HEADER
    values = document.load(text)
    if values is None:
        # Comments alone.
        stream = io.StringIO()
        document.dump(_quoted(changes), stream)
        result = text.rstrip("\n") + "\n" + stream.getvalue()
    else:
        _lay_over(values, changes)
        stream = io.StringIO()
        document.dump(values, stream)
        result = stream.getvalue()
    _check(path, result, merge(before, changes))
    write_text(path, result)


def _lay_over(values: Any, changes: Mapping[str, Any]) -> None:
    for key, value in changes.items():
        old = values.get(key)
        if isinstance(old, Mapping) and isinstance(value, Mapping):
            _lay_over(old, value)
        else:
            values[_quoted(key)] = _quoted(value)


def _quoted(value: Any) -> Any:
    """Return values with those texts marked to be quoted that YAML 1.1 takes for something else.

    They are written as YAML 1.2, in which `on` and `yes` are texts, and read as 1.1.
    """
    from ruamel.yaml.scalarstring import SingleQuotedScalarString

    if isinstance(value, Mapping):
        return {_quoted(key): _quoted(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_quoted(item) for item in value]
    if isinstance(value, str) and not is_plain_text(value):
        return SingleQuotedScalarString(value)
    return value


def _check(path: Path, text: str, expected: Mapping[str, Any]) -> None:
    if parse_yaml(text, str(path)) != expected:
        raise UserError(
            "this file cannot be changed without changing what it says",
            where=path,
            fix="write these lines into it yourself:\n"
            + yaml.safe_dump(dict(expected), sort_keys=False),
        )
