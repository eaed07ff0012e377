"""Which code and which files a result depends on, as content hashes.

A stage must run again when code that it imports changes, and only then: not when a file is
touched, a comment reworded or another stage edited. `closure_hash` therefore hashes the syntax
trees, without docstrings, of a module and of everything in this package that it imports.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from wsss.errors import UserError
from wsss.files import write_text

PACKAGE = "wsss"
PACKAGE_FOLDER = Path(__file__).parent

_Documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def closure_hash(module: str, *, folder: Path = PACKAGE_FOLDER) -> str:
    """Return the hash of the code that importing and running `module` can reach.

    Args:
        module: Dotted name inside this package, such as `wsss.cam.training`.
        folder: Where the package's sources lie; another one only in tests.

    Returns:
        16 hex digits; the same on every Python version that parses the code alike.
    """
    digest = hashlib.sha256()
    for name in closure(module, folder=folder):
        digest.update(f"{name} {_module_hash(_stamp(_find(name, folder)))}\n".encode())
    return digest.hexdigest()[:16]


def closure(module: str, *, folder: Path = PACKAGE_FOLDER) -> tuple[str, ...]:
    """Return the sorted names of the package's modules that `module` imports, itself included.

    Imports inside functions count; imports under `if TYPE_CHECKING:` do not, as they never run.
    """
    if _find(module, folder) is None:
        raise ModuleNotFoundError(f"no module {module} in {folder}")
    seen: set[str] = set()
    waiting = [module]
    while waiting:
        name = waiting.pop()
        path = _find(name, folder)
        if name in seen or path is None:
            continue
        seen.add(name)
        # Importing a module runs the `__init__` of every package above it.
        waiting.extend(_parents(name))
        waiting.extend(_imported(_stamp(path), name))
    return tuple(sorted(seen))


def _parents(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[:length]) for length in range(1, len(parts))]


def _find(name: str, folder: Path) -> Path | None:
    parts = name.split(".")
    if parts[0] != PACKAGE:
        return None
    base = folder.joinpath(*parts[1:])
    for path in (base.with_suffix(".py"), base / "__init__.py"):
        if path.is_file() and (len(parts) > 1 or path.name == "__init__.py"):
            return path
    return None


# What identifies a file's content well enough within one process: parsing is the slow part.
_Stamp = tuple[str, int, int]


def _stamp(path: Path | None) -> _Stamp:
    assert path is not None
    status = path.stat()
    return (os.fspath(path), status.st_mtime_ns, status.st_size)


@functools.cache
def _parse(stamp: _Stamp) -> ast.Module:
    path = Path(stamp[0])
    try:
        return ast.parse(path.read_bytes(), filename=stamp[0])
    except SyntaxError as error:
        raise UserError(
            f"this source file is not valid Python: {error.msg}",
            where=f"{path}, line {error.lineno}",
        ) from None


@functools.cache
def _module_hash(stamp: _Stamp) -> str:
    return hashlib.sha256(repr(_shape(_parse(stamp))).encode()).hexdigest()


def _shape(node: Any) -> Any:
    # `ast.dump` also writes empty fields, which differ between Python versions.
    if isinstance(node, list):
        return [_shape(item) for item in node]
    if not isinstance(node, ast.AST):
        return node
    fields = []
    for name, value in ast.iter_fields(node):
        if name == "body" and isinstance(node, _Documented):
            value = _without_strings(value)
        if value is None or value == [] or name in ("ctx", "kind", "type_comment"):
            continue
        fields.append((name, _shape(value)))
    return (type(node).__name__, fields)


def _without_strings(body: list[ast.stmt]) -> list[ast.stmt]:
    # A bare string statement does nothing, wherever it stands: docstrings of modules, classes
    # and functions, and the ones that describe a dataclass's fields.
    return [
        statement
        for statement in body
        if not (
            isinstance(statement, ast.Expr)
            and isinstance(statement.value, ast.Constant)
            and isinstance(statement.value.value, str)
        )
    ]


@functools.cache
def _imported(stamp: _Stamp, module: str) -> tuple[str, ...]:
    package = module if stamp[0].endswith("__init__.py") else module.rpartition(".")[0]
    names: list[str] = []
    for node in _running_nodes(_parse(stamp)):
        if isinstance(node, ast.Import):
            names.extend(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = package.split(".")
                above = parts[: len(parts) - node.level + 1]
                base = ".".join([*above, *([base] if base else [])])
            names.append(base)
            # `from wsss.data import index` names a module, `from x import function` does not;
            # the search for the file tells them apart.
            names.extend(f"{base}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and node.args:
            names.extend(_import_module_argument(node))
    return tuple(name for name in names if name.split(".")[0] == PACKAGE)


def _import_module_argument(node: ast.Call) -> list[str]:
    function = node.func
    name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
    argument = node.args[0]
    if name == "import_module" and isinstance(argument, ast.Constant):
        return [argument.value] if isinstance(argument.value, str) else []
    return []


def _running_nodes(node: ast.AST) -> Iterator[ast.AST]:
    yield node
    if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
        children: list[ast.AST] = list(node.orelse)
    else:
        children = list(ast.iter_child_nodes(node))
    for child in children:
        yield from _running_nodes(child)


def file_fingerprint(path: Path, *, blocks: int = 64, block_bytes: int = 65536) -> str:
    """Return a hash of a large file's size and of evenly spaced blocks of its content.

    For weight files, which are hundreds of megabytes and looked at whenever the workflow is
    parsed: two different sets of weights differ everywhere, so 4 MiB of them tell enough, and
    neither the file's place nor its time counts.
    """
    size = path.stat().st_size
    digest = hashlib.sha256(str(size).encode())
    with open(path, "rb") as handle:
        if size <= blocks * block_bytes:
            digest.update(handle.read())
        else:
            for block in range(blocks):
                handle.seek((size - block_bytes) * block // (blocks - 1))
                digest.update(handle.read(block_bytes))
    return digest.hexdigest()[:16]


def write_manifest(folder: Path, output: Path) -> None:
    """Write the SHA-256 of every file in `folder`, in the format of `sha256sum`.

    Stages that read a folder depend on its manifest, so that only its content counts, never
    the time of a folder or of the files inside.
    """
    files = sorted(
        path
        for path in folder.rglob("*")
        # Hidden files are not results: Snakemake keeps its own time stamp in there.
        if path.is_file() and not path.name.startswith(".")
    )
    lines = []
    for path in files:
        with open(path, "rb") as handle:
            digest = hashlib.file_digest(handle, "sha256").hexdigest()
        lines.append(f"{digest}  {path.relative_to(folder).as_posix()}\n")
    write_text(output, "".join(lines))
