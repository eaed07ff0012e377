"""What the docstrings below a class's fields say, for who asks: settings describe themselves."""

from __future__ import annotations

import ast
import functools
import inspect
import itertools
import textwrap


def descriptions(cls: type) -> dict[str, str]:
    """Return field -> the docstring below it, of a class and of those that it extends.

    Pydantic's `use_attribute_docstrings` reads the sources whenever a class is made, that is at
    every start of every stage, where nobody asks.
    """
    found: dict[str, str] = {}
    for owner in reversed(cls.__mro__):
        found.update(_below_fields(owner))
    return found


@functools.cache
def _below_fields(cls: type) -> dict[str, str]:
    try:
        (tree,) = ast.parse(textwrap.dedent(inspect.getsource(cls))).body
    except (OSError, TypeError):
        return {}  # builtins, and what `create_model` makes, have no source
    assert isinstance(tree, ast.ClassDef)
    return {
        field.target.id: inspect.cleandoc(below.value.value)
        for field, below in itertools.pairwise(tree.body)
        if isinstance(field, ast.AnnAssign)
        and isinstance(field.target, ast.Name)
        and isinstance(below, ast.Expr)
        and isinstance(below.value, ast.Constant)
        and isinstance(below.value.value, str)
    }
