"""Which tests execute a line, by what `pytest --cov-context=test` recorded; for `mutants.py`."""

from __future__ import annotations

import ast
import re
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

MOST_TESTS = 80
MOST_S = 60.0
"""So many of the tests that execute a line are run: of as many files as there are, quick ones."""
UNTIMED_S = 0.05
"""Taken for a test that the list of durations leaves out."""


@dataclass
class Covering:
    """The tests of each line, and how long they took.

    Args:
        by_line: Of each file below the checkout, of each line, the names of its tests as pytest
            takes them; lines that only ran while modules were imported are left out.
        seconds: Of each test.
        by_file: Of each file of tests, those of its tests that execute the library.
    """

    by_line: dict[str, dict[int, set[str]]]
    seconds: dict[str, float] = field(default_factory=dict)
    by_file: dict[str, set[str]] = field(default_factory=dict)

    @classmethod
    def read(cls, data: Path, durations: Path | None, root: Path) -> Covering:
        """Read the data file of `coverage` and the output of `pytest --durations=0`.

        Raises:
            SystemExit: The data hold no contexts.
        """
        by_line: dict[str, dict[int, set[str]]] = {}
        by_file: dict[str, set[str]] = {}
        with sqlite3.connect(f"file:{data}?mode=ro", uri=True) as base:
            for (context,) in base.execute("select context from context"):
                if "|" in context:
                    name = context.rsplit("|", 1)[0]
                    by_file.setdefault(name.split("::")[0], set()).add(name)
            rows = base.execute(
                "select path, context, numbits from line_bits"
                " join file on file.id = file_id join context on context.id = context_id"
            )
            for path, context, bits in rows:
                if "|" not in context:
                    continue
                name, phase = context.rsplit("|", 1)
                # What one test sets up may be looked at by the others of its file.
                names = {name} if phase == "run" else by_file[name.split("::")[0]]
                lines = by_line.setdefault(str(Path(path).relative_to(root)), {})
                for line in numbers(bits):
                    lines.setdefault(line, set()).update(names)
        if not by_line:
            raise SystemExit(f"{data} does not say which test executed a line: --cov-context=test")
        seconds: dict[str, float] = {}
        for found in re.finditer(
            r"^([\d.]+)s (?:call|setup)\s+(\S.*)$", durations.read_text() if durations else "", re.M
        ):
            seconds[found[2]] = seconds.get(found[2], 0.0) + float(found[1])
        return cls(by_line, seconds, by_file)

    def tests_of(self, file: str, tree: ast.Module, line: int) -> tuple[str, ...] | None:
        """Return the tests to run for a fault in a line.

        Args:
            file: The module's path below the checkout.
            tree: The module as it is without the fault.
            line: Where the fault is; in a statement of several lines, all of them count.

        Returns:
            Names of tests, quick ones first; none where no test executes the line; None where it
            runs while the module is imported.
        """
        inside, called = statement_of(tree, line)
        if not called:
            return None
        lines = self.by_line.get(file, {})
        return self.chosen(set().union(*(lines.get(each, set()) for each in inside)))

    def tests_of_module(self, file: str, importing: Sequence[str]) -> tuple[str, ...]:
        """Return the tests that execute anything of a module, and those of files that import it."""
        tests: set[str] = set().union(*self.by_line.get(file, {}).values())
        return self.chosen(tests.union(*(self.by_file.get(each, set()) for each in importing)))

    def tests_in(self, files: Sequence[str]) -> tuple[str, ...]:
        """Return the tests to run of whole files, quick ones first."""
        return self.chosen(set().union(*(self.by_file.get(each, set()) for each in files)))

    def time_s(self, name: str) -> float:
        """Return how long a test takes, about."""
        return self.seconds.get(name, UNTIMED_S)

    def chosen(self, tests: set[str]) -> tuple[str, ...]:
        """Choose some of many tests; those of a file stay together, as they share what it sets up.

        Returns:
            Names, files that take little time first, and in each the quick ones first.
        """
        quick = sorted(tests, key=lambda name: (self.time_s(name), name))
        # The first of each file before the second of any: tests of one file are much alike.
        turns: dict[str, int] = {}
        order: list[tuple[int, int, str]] = []
        for place, name in enumerate(quick):
            file = name.split("::")[0]
            turns[file] = turns.get(file, 0) + 1
            order.append((turns[file], place, name))
        files: dict[str, list[str]] = {}
        total_s = 0.0
        for _, _, name in sorted(order)[:MOST_TESTS]:
            if not files or total_s + self.time_s(name) <= MOST_S:
                total_s += self.time_s(name)
                files.setdefault(name.split("::")[0], []).append(name)
        groups = sorted(files.values(), key=lambda names: sum(map(self.time_s, names)))
        return tuple(name for names in groups for name in names)


def numbers(bits: bytes) -> list[int]:
    """Return the numbers of the bits that are set, as `coverage` keeps its lines."""
    return [
        8 * place + bit for place, byte in enumerate(bits) for bit in range(8) if byte >> bit & 1
    ]


def statement_of(tree: ast.Module, line: int) -> tuple[range, bool]:
    """Return the lines of the smallest statement that holds a line, and whether a function does.

    Of a statement with a body (`if`, `for`, `with`) those before its body.
    """
    best = range(line, line + 1)
    size = 10**9
    called = False
    for node in ast.walk(tree):
        if not isinstance(node, ast.stmt) or node.end_lineno is None:
            continue
        if not node.lineno <= line <= node.end_lineno:
            continue
        body = getattr(node, "body", None)
        first = body[0].lineno if isinstance(body, list) and body else None
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            called = called or (first is not None and line >= first)
            continue
        if isinstance(node, ast.ClassDef):
            continue
        last = node.end_lineno if first is None else max(node.lineno, first - 1)
        if line <= last and last - node.lineno < size:
            best, size = range(node.lineno, last + 1), last - node.lineno
    return best, called
