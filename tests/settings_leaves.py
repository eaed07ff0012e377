"""Every setting of every stage, by its place, and the marks of the tests that show it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import NamedTuple

from wsss.project.file import STAGES, stage_kind
from wsss.project.local import LocalCompute
from wsss.runtime.registry import Kind, Registry, inner_kind
from wsss.runtime.settings import Settings

KINDS: dict[str, Kind] = {**{stage: stage_kind(stage) for stage in STAGES}, "compute": LocalCompute}


class Leaf(NamedTuple):
    """One setting of one class: several methods, formats or heads can have one of its place."""

    place: str
    owner: type[Settings]
    key: str


def leaves(kind: Kind, place: str) -> Iterator[Leaf]:
    """Yield the settings of a kind; of a registry, of all that the library itself has."""
    if isinstance(kind, Registry):
        for entry in kind.entries().values():
            if entry.settings.__module__.partition(".")[0] == "wsss":
                yield from leaves(entry.settings, place)
        return
    for key, field in kind.model_fields.items():
        inner = inner_kind(field)
        if inner is None:
            yield Leaf(f"{place}.{key}", kind, key)
        else:
            yield from leaves(inner, f"{place}.{key}")


def all_leaves() -> list[Leaf]:
    """Return the settings of all stages, and of how a machine computes."""
    return [leaf for stage, kind in KINDS.items() for leaf in leaves(kind, stage)]


def marks(tree: ast.AST) -> Iterator[ast.Call]:
    """Yield the marks `setting` of tests; what is slow is not run with the others, and left out."""
    if isinstance(tree, (ast.FunctionDef, ast.ClassDef)) and any(
        ast.unparse(node) == "pytest.mark.slow" for node in tree.decorator_list
    ):
        return
    if isinstance(tree, ast.Call) and ast.unparse(tree.func) == "pytest.mark.setting":
        yield tree
    for node in ast.iter_child_nodes(tree):
        yield from marks(node)


def names(mark: ast.Call) -> list[str]:
    """Return what a mark names; texts alone, so that they can be read without running anything."""
    values = [ast.literal_eval(node) for node in mark.args]
    assert values and not mark.keywords and all(isinstance(value, str) for value in values)
    return values
