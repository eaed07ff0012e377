"""Which code and which files a result depends on, as content hashes.

A stage must run again when code that can change its result changes, and only then: not when a file
is touched, a comment or a message reworded or another stage edited. `closure_hash` therefore hashes
the syntax trees, without docstrings and messages, of a module and of everything in this package
that it imports, apart from what only tells of the work.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.util
import os
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from wsss.errors import UserError
from wsss.files import written_text
from wsss.runtime.cache import entry, keep

PACKAGE = "wsss"
PACKAGE_FOLDER = Path(__file__).parent

# Parsing all modules takes a second, and every stage and every start of Snakemake wants the hashes:
# they are kept, by the sources' whole content.
KIND = "code"

# What tells of the work, guards it or explains what stopped it, and hands no array to anything. It
# is in no hash, nor is what only it imports. `wsss` itself holds the lazy names of the public API.
OUTSIDE = frozenset(
    {
        "wsss",
        "wsss.cam.training_pictures",
        "wsss.errors",
        "wsss.files.marks",
        "wsss.files.temporaries",
        "wsss.provenance",
        "wsss.runtime.compiler",
        "wsss.runtime.descriptions",
        "wsss.runtime.ending",
        "wsss.runtime.faults",
        "wsss.runtime.heartbeat",
        "wsss.runtime.locks",
        "wsss.runtime.memory",
        "wsss.runtime.openmp",
        "wsss.runtime.progress",
        "wsss.runtime.stage_process",
        "wsss.segmentation.training_pictures",
        "wsss.training.metrics",
        "wsss.training.out_of_memory",
        "wsss.training.pictures",
        "wsss.training.reporting",
    }
)
# Calls that make the message of an error: their arguments are in no hash.
MESSAGES = frozenset({"UserError", "impossible", "unknown_key"})

_Documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def closure_hash(module: str, *others: str, folder: Path = PACKAGE_FOLDER) -> str:
    """Return the hash of the code that can change what running `module` gives.

    Args:
        module: Dotted name inside this package, such as `wsss.cam.training`.
        others: Modules that it loads by name, such as the chosen CAM method's; also from outside
            the package, with the modules beside them that they import.
        folder: Where the package's sources lie; another one only in tests.

    Returns:
        16 hex digits; the same on every Python version that parses the code alike.
    """
    modules = (module, *others)
    if any(name.split(".")[0] != PACKAGE for name in modules):
        return _hash_of(modules, folder)  # what lies beside a plugin is in no state
    state = _state(folder)
    kept = entry(KIND, hashlib.sha256(f"{modules} {state}".encode()).hexdigest())
    with suppress(OSError, UnicodeDecodeError):
        text = kept.read_text()
        if re.fullmatch(r"[0-9a-f]{16}", text):
            return text
    found = _hash_of(modules, folder)
    # A file that was saved meanwhile is in the hash, not in the state: nobody's entry.
    if _state(folder) == state:
        keep(KIND, kept.name, found.encode(), quietly=True)
    return found


def _hash_of(modules: tuple[str, ...], folder: Path) -> str:
    digest = hashlib.sha256()
    for name, path in _closure(modules, folder).items():
        digest.update(f"{name} {_module_hash(_stamp(path))}\n".encode())
    return digest.hexdigest()[:16]


def _state(folder: Path) -> str:
    """Return a hash of the package's sources as they are, of this file and of what parses them."""
    return _state_of(folder, tuple(sorted(_sources(os.fspath(folder)))))


def _sources(folder: str) -> Iterator[_Stamp]:
    """Yield the stamps of all sources in a folder; in haste, as a start asks two dozen times."""
    with os.scandir(folder) as entries:
        for found in entries:
            if found.is_dir():
                yield from _sources(found.path)
            elif found.name.endswith(".py"):
                status = found.stat()
                yield (found.path, status.st_mtime_ns, status.st_size)


@functools.cache
def _state_of(folder: Path, stamps: tuple[_Stamp, ...]) -> str:
    digest = hashlib.sha256(f"{sys.version_info} {_content_hash(__file__)}\n".encode())
    for path, _, _ in stamps:
        name = Path(path).relative_to(folder).as_posix()
        digest.update(f"{name} {_content_hash(path)}\n".encode())
    return digest.hexdigest()


def _content_hash(path: str) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def closure(module: str, *others: str, folder: Path = PACKAGE_FOLDER) -> tuple[str, ...]:
    """Return the sorted names of the modules whose code `closure_hash` is of.

    Imports inside functions count; imports under `if TYPE_CHECKING:` do not, as they never run.
    """
    return tuple(_closure((module, *others), folder))


def _closure(modules: tuple[str, ...], folder: Path) -> dict[str, Path]:
    """Return name -> file, in the order of the names."""
    plugins = [_plugin(name) for name in modules if name.split(".")[0] != PACKAGE]
    places = {path.parent for path in plugins}

    def find(name: str) -> Path | None:
        if name.split(".")[0] == PACKAGE:
            return _find(name, folder)
        found = (place.joinpath(*name.split(".")).with_suffix(".py") for place in places)
        return next((path for path in found if path.is_file()), None)

    for name in modules:
        if find(name) is None:
            raise ModuleNotFoundError(f"no module {name} in {folder}")
    seen: dict[str, Path] = {}
    looked_for: set[str] = set()
    waiting = list(modules)
    while waiting:
        name = waiting.pop()
        if name in looked_for or name in OUTSIDE:
            continue
        looked_for.add(name)
        path = find(name)
        if path is None:
            continue
        seen[name] = path
        # Importing a module runs the `__init__` of every package above it.
        waiting.extend(_parents(name))
        waiting.extend(_imported(_stamp(path), name))
    return dict(sorted(seen.items()))


def _plugin(name: str) -> Path:
    """Return the file of a module outside the package."""
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f"no module {name}")
    return Path(spec.origin)


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


def _stamp(path: Path) -> _Stamp:
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
    is_message = isinstance(node, ast.Call) and _called(node) in MESSAGES
    for name in node._fields:
        value: Any = getattr(node, name, None)
        if is_message and name in ("args", "keywords"):
            continue
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
    # Only a call of that name is an expression that imports.
    calls = b"import_module" in Path(stamp[0]).read_bytes()
    for node in _running_nodes(_parse(stamp), expressions=calls):
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
    return tuple(names)


def _called(node: ast.Call) -> str:
    function = node.func
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def _import_module_argument(node: ast.Call) -> list[str]:
    argument = node.args[0]
    if _called(node) == "import_module" and isinstance(argument, ast.Constant):
        return [argument.value] if isinstance(argument.value, str) else []
    return []


def _running_nodes(tree: ast.Module, *, expressions: bool) -> Iterator[ast.AST]:
    """Yield what is not under `if TYPE_CHECKING:`; expressions are nine tenths of a module."""
    kinds = (ast.AST,) if expressions else (ast.stmt, ast.excepthandler, ast.match_case)
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        yield node
        children: Iterable[ast.AST] = ast.iter_child_nodes(node)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            children = node.orelse
        waiting.extend(child for child in children if isinstance(child, kinds))


def file_fingerprint(path: Path, *, blocks: int = 64, block_bytes: int = 65536) -> str:
    """Return a hash of a large file's size and of evenly spaced blocks of its content.

    For weight files, which are hundreds of megabytes and looked at whenever the workflow is
    parsed: two different sets of weights differ everywhere, so 4 MiB of them tell enough, and
    neither the file's place nor its time counts. Of a folder, that of each of its files by name.
    """
    if path.is_dir():
        files = {
            file.name: file_fingerprint(file, blocks=blocks, block_bytes=block_bytes)
            for file in sorted(path.iterdir())
            if file.is_file() and not file.name.startswith(".")
        }
        return hashlib.sha256(repr(files).encode()).hexdigest()[:16]
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
    files = sorted(_files_below(folder))
    if any("/" in name for name in files):
        files.sort(key=lambda name: name.split("/"))
    with written_text(output) as lines:
        for name in files:
            with open(folder / name, "rb") as handle:
                digest = hashlib.file_digest(handle, "sha256").hexdigest()
            lines.write(f"{digest}  {name}\n")


def _files_below(folder: Path) -> Iterator[str]:
    """Yield the files in a folder, relative to it; there may be a million of them."""
    for place, _, names in os.walk(folder):
        inner = Path(place).relative_to(folder).as_posix()
        for name in names:
            # Hidden files are not results: Snakemake keeps its own time stamp in there.
            if not name.startswith(".") and Path(place, name).is_file():
                yield name if inner == "." else f"{inner}/{name}"
