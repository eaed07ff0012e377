"""YAML files read strictly: errors and repeated keys are named with file and line."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import yaml

from wsss.errors import UserError


class _StrictLoader(yaml.SafeLoader):
    """PyYAML keeps the last of two equal keys; here that is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: dict[Any, int] = {}
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key = self.construct_object(key_node, deep=True)
            line = key_node.start_mark.line + 1
            if key in seen:
                raise UserError(
                    f"the key '{key}' stands twice",
                    where=f"{key_node.start_mark.name}, line {line} and line {seen[key]}",
                    fix="keep one of them",
                )
            seen[key] = line
        return super().construct_mapping(node, deep=deep)


# YAML 1.1 takes `1e-4` for a text, as it wants a dot in numbers; YAML 1.2 and people do not.
_StrictLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"),
    list("-+.0123456789"),
)


def read_yaml(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a YAML file whose top level is a mapping; an empty file is an empty mapping.

    Raises:
        UserError: The file is missing, is not YAML, or holds something else than a mapping.
    """
    name = os.fspath(path)
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot read this file: {error.strerror}", where=name) from None
    except UnicodeDecodeError:
        raise UserError("this file is not UTF-8 text", where=name) from None
    return parse_yaml(text, name)


def parse_yaml(text: str, name: str) -> dict[str, Any]:
    """Read the text of a YAML file called `name`; see `read_yaml`."""
    loader = _StrictLoader(text)
    loader.name = name
    try:
        values = loader.get_single_data()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = name if mark is None else f"{name}, line {mark.line + 1}, column {mark.column + 1}"
        raise UserError(f"this is not valid YAML: {error.problem}", where=place) from None
    except yaml.YAMLError as error:
        raise UserError(f"this is not valid YAML: {error}", where=name) from None
    finally:
        loader.dispose()
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise UserError("the file's top level is not a mapping", where=name)
    return values
