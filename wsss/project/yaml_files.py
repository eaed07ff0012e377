"""YAML files read strictly: errors and repeated keys are named with file and line.

Names are what people write them as: YAML takes `2012`, `on` and `2024-05-01` for a number, a truth
and a date, and as the name of a run each is the text that stands there.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import Any

import yaml

from wsss.errors import UserError
from wsss.files import read_text

# Aliases and merges repeat what they name: 30 lines can stand for more than any memory holds.
MOST_NODES = 100_000
_MERGE = "tag:yaml.org,2002:merge"
_TEXT = "tag:yaml.org,2002:str"
# Nothing can be called so: no file, no text for people.
_NOT_TEXT = re.compile("[\0\ud800-\udfff]")


class _StrictLoader(yaml.SafeLoader):
    """PyYAML keeps the last of two equal keys; here that is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: dict[Any, int] = {}
        for key_node, _ in node.value:
            if key_node.tag == _MERGE:
                continue
            line = key_node.start_mark.line + 1
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise UserError(
                    f"the key '{key}' stands twice",
                    where=f"{key_node.start_mark.name}, line {line} and line {seen[key]}",
                    fix="keep one of them",
                )
            seen[key] = line
        return super().construct_mapping(node, deep=deep)

    def construct_scalar(self, node: Any) -> Any:
        value = super().construct_scalar(node)
        if isinstance(value, str) and _NOT_TEXT.search(value):
            raise UserError(
                f"{value!r} is no text",
                where=f"{node.start_mark.name}, line {node.start_mark.line + 1}",
                expected="no NUL and no half of a character",
            )
        return value


# YAML 1.1 takes `1e-4` for a text, as it wants a dot in numbers; YAML 1.2 and people do not.
_StrictLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"),
    list("-+.0123456789"),
)


def is_plain_text(text: str) -> bool:
    """Say whether a text that stands without quotes is read as a text here."""
    loader = _StrictLoader("")
    try:
        tag = loader.resolve(yaml.ScalarNode, text, (True, False))  # type: ignore[no-untyped-call]
        return bool(tag == _TEXT)
    finally:
        loader.dispose()


def read_yaml(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a YAML file whose top level is a mapping; an empty file is an empty mapping.

    Raises:
        UserError: The file is missing, is not YAML, or holds something else than a mapping.
    """
    return parse_yaml(read_text(path), os.fspath(path))


def parse_yaml(text: str, name: str) -> dict[str, Any]:
    """Read the text of a YAML file called `name`; see `read_yaml`."""
    try:
        values = _parse(text, name)
    except UserError:
        raise
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = name if mark is None else f"{name}, line {mark.line + 1}, column {mark.column + 1}"
        problem = error.problem or error.context
        raise UserError(f"this is not valid YAML: {problem}", where=place) from None
    except RecursionError:
        raise UserError("this YAML is nested too deeply", where=name) from None
    except Exception as error:
        # PyYAML fails in its own ways at dates that are none, numbers without digits and the like.
        raise UserError(f"this is not valid YAML: {error}", where=name) from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise UserError("the file's top level is not a mapping", where=name)
    return values


def _parse(text: str, name: str) -> Any:
    loader = _StrictLoader(text)
    loader.name = name
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        nodes = _children_first(node, name)
        if _written_out(nodes) > MOST_NODES:
            raise UserError(
                f"with its aliases written out, this file has more than {MOST_NODES} values",
                where=name,
                fix="write out what `*` and `<<` stand for, or use fewer of them",
            )
        _read_names_as_text(nodes, name)
        return loader.construct_document(node)
    finally:
        loader.dispose()


def _children_first(root: yaml.Node, name: str) -> list[yaml.Node]:
    """Return each node once, what it holds before it; without recursion, however deep it is."""
    ordered: list[yaml.Node] = []
    closed: set[int] = set()
    opened: set[int] = set()
    waiting = [root]
    while waiting:
        node = waiting[-1]
        if id(node) in closed:
            waiting.pop()
        elif id(node) in opened:
            waiting.pop()
            closed.add(id(node))
            ordered.append(node)
        else:
            opened.add(id(node))
            for inner in _inner(node):
                if id(inner) in opened and id(inner) not in closed:
                    raise UserError(
                        "a value holds itself",
                        where=f"{name}, line {inner.start_mark.line + 1}",
                        fix="take the alias (`*`) out",
                    )
                waiting.append(inner)
    return ordered


def _inner(node: yaml.Node) -> Iterator[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield from (key, value)
    elif isinstance(node, yaml.SequenceNode):
        yield from node.value


def _written_out(nodes: list[yaml.Node]) -> int:
    """Return how many values the last node has where every alias is what it stands for."""
    sizes: dict[int, int] = {}
    for node in nodes:
        sizes[id(node)] = 1 + sum(sizes[id(inner)] for inner in _inner(node))
    return sizes[id(nodes[-1])]


def _read_names_as_text(nodes: list[yaml.Node], name: str) -> None:
    for node in nodes:
        for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            if not isinstance(key, yaml.ScalarNode):
                raise UserError(
                    "a list or a mapping stands for a name",
                    where=f"{name}, line {key.start_mark.line + 1}",
                    expected="a text before the colon",
                )
            if key.tag != _MERGE:
                key.tag = _TEXT
