"""The rooms of the library stand above what they use: no module imports upwards."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from conftest import REPOSITORY

PACKAGE = REPOSITORY / "wsss"
# Lowest first; a room may import those of the levels below it, and itself.
LEVELS = (
    ("errors",),
    ("files",),
    ("runtime",),
    ("provenance",),
    ("models",),
    ("maps",),
    ("data",),
    ("training",),
    ("cam", "irn", "segmentation"),
    ("evaluation",),
    ("figures",),
    ("stages",),
    ("monitor", "project", "report"),
    ("api",),
    ("commands",),
    ("cli",),
    ("__main__",),
)
MOST_LINES = 400
LEVEL = {room: height for height, rooms in enumerate(LEVELS) for room in rooms}


def imported(path: Path) -> Iterator[str]:
    """Yield the modules of the package that a file imports anywhere, for types alone too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module is not None, f"{path}: a relative import"
            whole = node.module == "wsss"
            yield from (f"wsss.{alias.name}" for alias in node.names) if whole else [node.module]


def test_no_room_imports_one_above_it() -> None:
    arrows = []
    for path in sorted(PACKAGE.rglob("*.py")):
        room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        if room == "__init__":
            continue
        for name in imported(path):
            package, _, rest = name.partition(".")
            other = rest.partition(".")[0]
            if rest == "__version__":
                continue
            if package == "wsss" and other != room and LEVEL[other] >= LEVEL[room]:
                arrows.append(f"{path.relative_to(PACKAGE)} -> {name}")
    assert arrows == []


def test_nothing_lies_loose_at_the_root() -> None:
    loose = {path.stem for path in PACKAGE.glob("*.py")}
    assert loose <= {"__init__", "__main__", "errors", "provenance", "stages", "cli"}
    rooms = {path.name for path in PACKAGE.iterdir() if path.is_dir()} - {"__pycache__"}
    assert rooms <= set(LEVEL)


def test_no_module_is_long() -> None:
    lines = {path: len(path.read_text().splitlines()) for path in PACKAGE.rglob("*.py")}
    assert [path.name for path, count in lines.items() if count > MOST_LINES] == []
