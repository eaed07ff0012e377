"""Small faults in the library's modules, drawn by a seed; for `mutants.py`."""

from __future__ import annotations

import ast
import copy
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
WORDS = {"description", "expected", "fix", "help", "metavar", "where", "what", "about"}
"""Keyword arguments that only say something."""
PER_MODULE = 3

COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
}
OPERATORS: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Div,
    ast.Mod: ast.FloorDiv,
}


@dataclass(frozen=True)
class Mutant:
    """A fault: the module's file, the place, what it was and what it became."""

    file: str
    line: int
    column: int
    before: str
    after: str
    source: str


def places(tree: ast.Module) -> Iterator[ast.AST]:
    """Yield the nodes that a fault may be put into."""
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        yield node
        for name, value in ast.iter_fields(node):
            if name in ("annotation", "returns", "decorator_list", "bases"):
                continue
            children = value if isinstance(value, list) else [value]
            for child in children:
                if isinstance(child, ast.AST) and not _is_text(node, child):
                    waiting.append(child)


def _is_text(parent: ast.AST, child: ast.AST) -> bool:
    """Say whether a node is a docstring, a message, or there for the type checker alone."""
    if isinstance(child, ast.Expr) and isinstance(child.value, ast.Constant):
        return True
    if isinstance(child, (ast.Import, ast.ImportFrom, ast.JoinedStr)):
        return True
    if isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING":
        return True
    called = ast.unparse(child.func) if isinstance(child, ast.Call) else ""
    return called.endswith(("Error", "print", "warn", "cast", "TypeVar"))


def faults(node: ast.AST) -> Iterator[ast.AST]:
    """Yield what a node may become; each a copy."""
    new: ast.AST
    if isinstance(node, ast.Compare) and type(node.ops[0]) in COMPARISONS:
        new = copy.deepcopy(node)
        new.ops[0] = COMPARISONS[type(node.ops[0])]()
        yield new
    elif isinstance(node, ast.BinOp) and type(node.op) in OPERATORS:
        new = copy.deepcopy(node)
        new.op = OPERATORS[type(node.op)]()
        yield new
    elif isinstance(node, ast.BoolOp):
        new = copy.deepcopy(node)
        new.op = ast.Or() if isinstance(node.op, ast.And) else ast.And()
        yield new
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        yield copy.deepcopy(node.operand)
    elif isinstance(node, ast.Constant) and isinstance(node.value, bool):
        yield ast.Constant(not node.value)
    elif isinstance(node, ast.Constant) and isinstance(node.value, int):
        yield ast.Constant(node.value + 1)
    elif isinstance(node, ast.Constant) and isinstance(node.value, float):
        yield ast.Constant(node.value * 1.5 + 0.01)
    elif isinstance(node, ast.Call) and any(each.arg for each in node.keywords):
        for position, keyword in enumerate(node.keywords):
            if keyword.arg is not None and keyword.arg not in WORDS:
                new = copy.deepcopy(node)
                del new.keywords[position]
                yield new
    elif isinstance(node, (ast.Raise, ast.AugAssign)) or (
        isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)
    ):
        yield ast.Pass()


class _Replace(ast.NodeTransformer):
    def __init__(self, old: ast.AST, new: ast.AST) -> None:
        self.old, self.new = old, new

    def visit(self, node: ast.AST) -> ast.AST:
        return self.new if node is self.old else self.generic_visit(node)


Place = tuple[ast.AST, ast.AST]
"""A node of a module, and what it becomes."""


def all_places(tree: ast.Module) -> list[Place]:
    """Return every fault that a module may get."""
    return [(node, new) for node in places(tree) for new in faults(node)]


def mutant(path: Path, tree: ast.Module, node: ast.AST, new: ast.AST) -> Mutant:
    """Put a fault into a module; the tree stays as it was."""
    line, column = position(node)
    ast.copy_location(new, node)
    # The tree is changed and changed back, as a copy would not hold the node.
    changed = ast.fix_missing_locations(_Replace(node, new).visit(tree))
    source = ast.unparse(changed)
    _Replace(new, node).visit(changed)
    name = str(path.relative_to(ROOT))
    return Mutant(name, line, column, ast.unparse(node), ast.unparse(new), source)


def drawn(count: int, seed: int, only: Sequence[str]) -> list[Mutant]:
    """Draw `count` faults: three of one module, three of the next; what is left of larger ones.

    No two of a module lie on the same line.
    """
    modules = sorted((ROOT / "wsss").rglob("*.py"))
    if only:
        modules = [path for path in modules if str(path.relative_to(ROOT)) in only]
    trees = {path: ast.parse(path.read_text()) for path in modules}
    by_module: dict[Path, list[Place]] = {}
    for path, tree in trees.items():
        found = all_places(tree)
        random.Random(f"{seed} {path.relative_to(ROOT)}").shuffle(found)
        by_line: dict[int, Place] = {}
        for place in found:
            by_line.setdefault(getattr(place[0], "lineno", 0), place)
        by_module[path] = list(by_line.values())[:count]
    chance = random.Random(seed)
    chance.shuffle(modules)
    first = [(path, place) for path in modules for place in by_module[path][:PER_MODULE]]
    rest = [(path, place) for path in modules for place in by_module[path][PER_MODULE:]]
    # Beyond the first few of each a module's share is its size.
    chance.shuffle(rest)
    return [mutant(path, trees[path], *place) for path, place in (first + rest)[:count]]


def position(node: ast.AST) -> tuple[int, int]:
    """Return line and column of a node; 0 where it has none."""
    return getattr(node, "lineno", 0), getattr(node, "col_offset", 0)


def again(old: Mutant) -> Mutant | None:
    """Return a fault of an earlier survey, of several alike the nearest; None where it is gone."""
    path = ROOT / old.file
    if not path.exists():
        return None
    tree = ast.parse(path.read_text())
    alike = [
        place
        for place in all_places(tree)
        if (ast.unparse(place[0]), ast.unparse(place[1])) == (old.before, old.after)
    ]

    def distance(place: Place) -> tuple[int, int]:
        line, column = position(place[0])
        return abs(line - old.line), abs(column - old.column)

    return mutant(path, tree, *min(alike, key=distance)) if alike else None
