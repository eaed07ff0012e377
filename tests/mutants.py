"""Put small faults into the library, one at a time, and see whether its tests notice.

    python tests/mutants.py --count 400 --seed 0 --processes 2 --output mutants.json
    python tests/mutants.py --only wsss/irn/labels.py --count 20

Faults are drawn by the seed, at least three a module as far as `--count` allows: a comparison, an
operator or a number changed, a condition turned round, a keyword argument or a statement left
away. Messages, annotations and docstrings stay as they are. Each fault goes into a copy of the
checkout, where the fast tests run that import the module, then those of its room, until one fails.
Printed are the faults that no test noticed, which a person has to look at (some change nothing
that anybody could see), and how many of each module's were noticed. It takes about a quarter of a
minute a fault, more for those that survive; continuous integration does not run it.
`ignored_settings.py` is the other half: settings that the library would not look at.
"""

from __future__ import annotations

import argparse
import ast
import copy
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from queue import Queue

ROOT = Path(__file__).resolve().parents[1]
WORDS = {"description", "expected", "fix", "help", "metavar", "where", "what", "about"}
"""Keyword arguments that only say something."""
PER_MODULE = 3
LIMIT_S = 300

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
    """A fault: the module's file, the line, what it was and what it became."""

    file: str
    line: int
    before: str
    after: str
    source: str


@dataclass(frozen=True)
class Outcome:
    """What came of a fault: `killed`, `survived`, `timeout`, which is killed, or `broken`.

    Broken are tests that fail, or cannot run, without any fault: they would notice nothing.
    """

    mutant: Mutant
    result: str
    tests: tuple[str, ...]


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


def mutants_of(path: Path, chance: random.Random, wanted: int) -> list[Mutant]:
    """Draw faults of a module, no two on a line as far as there are lines."""
    text = path.read_text()
    tree = ast.parse(text)
    found = [(node, new) for node in places(tree) for new in faults(node)]
    chance.shuffle(found)
    lines: set[int] = set()
    drawn = []
    for node, new in found:
        line = getattr(node, "lineno", 0)
        if line in lines or len(drawn) == wanted:
            continue
        lines.add(line)
        ast.copy_location(new, node)
        # The tree is changed and changed back, as a copy would not hold the node.
        changed = ast.fix_missing_locations(_Replace(node, new).visit(tree))
        source = ast.unparse(changed)
        tree = _Replace(new, node).visit(changed)
        name = str(path.relative_to(ROOT))
        drawn.append(Mutant(name, line, ast.unparse(node), ast.unparse(new), source))
    return drawn


def drawn(count: int, seed: int, only: Sequence[str]) -> list[Mutant]:
    """Draw `count` faults: a few a module, of larger modules more."""
    modules = sorted((ROOT / "wsss").rglob("*.py"))
    if only:
        modules = [path for path in modules if str(path.relative_to(ROOT)) in only]
    by_module: dict[Path, list[Mutant]] = {}
    for path in modules:
        chance = random.Random(f"{seed} {path.relative_to(ROOT)}")
        by_module[path] = mutants_of(path, chance, count)
    chance = random.Random(seed)
    chance.shuffle(modules)
    chosen: list[Mutant] = []
    for turn in range(max(map(len, by_module.values()), default=0)):
        # After the first few of each a module's share is its size.
        for path in modules:
            more = turn < PER_MODULE or chance.random() < len(by_module[path]) / count
            if len(chosen) < count and more and turn < len(by_module[path]):
                chosen.append(by_module[path][turn])
    return chosen


def tests_of(file: str) -> tuple[str, ...]:
    """Return the test files to run for a module: what imports it, then those of its room."""
    module = file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    direct: list[str] = []
    room: list[str] = []
    alone: list[str] = []
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        test = str(path.relative_to(ROOT))
        imported = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module:
                imported |= {node.module}
                imported |= {f"{node.module}.{each.name}" for each in node.names}
            elif isinstance(node, ast.Import):
                imported |= {each.name for each in node.names}
        if module in imported:
            direct.append(test)
        elif file.split("/")[1] in path.relative_to(ROOT).parts:
            room.append(test)
        elif path.parent.name == "tests":
            alone.append(test)
    # Commands and what else has no folder of tests is tested by those that lie in none.
    return (*direct, *(room or alone))


def passes(tests: Sequence[str], place: Path) -> bool | None:
    """Run tests until one fails; None: they took too long."""
    words = [sys.executable, "-m", "pytest", "-x", "-q", "-m", "not slow", "-p", "no:cacheprovider"]
    environment = {**os.environ, "PYTHONPATH": str(place), "OMP_NUM_THREADS": "1"}
    try:
        done = subprocess.run(
            [*words, "-p", "no:xdist", *tests],
            cwd=place,
            env=environment,
            capture_output=True,
            timeout=LIMIT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return None
    # 5: there were none. A fault that nothing can be imported with is an error of collection, 2.
    return done.returncode in (0, 5)


@dataclass
class Known:
    """Which tests pass without any fault; found out once for each set of them."""

    found: dict[tuple[str, ...], bool] = field(default_factory=dict)

    def passes(self, tests: tuple[str, ...], place: Path) -> bool:
        """Return whether they do, by running them where that is not known."""
        if tests not in self.found:
            self.found[tests] = passes(tests, place) is True
        return self.found[tests]


def tried(mutant: Mutant, place: Path, known: Known) -> Outcome:
    """Put a fault into a copy of the checkout, run the tests, and take it out again."""
    path = place / mutant.file
    kept = path.read_text()
    tests = tests_of(mutant.file)
    path.write_text(mutant.source)
    try:
        noticed = passes(tests, place)
    finally:
        path.write_text(kept)
    result = {True: "survived", False: "killed", None: "timeout"}[noticed]
    if result != "survived" and not known.passes(tests, place):
        result = "broken"
    return Outcome(mutant, result, tests)


def copied() -> Path:
    """Return a new copy of the checkout: of what Git knows."""
    place = Path(tempfile.mkdtemp(prefix="mutants-"))
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True, text=True
    )
    for name in filter(None, listed.stdout.split("\0")):
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, place / name)
    return place


def survey(mutants: Sequence[Mutant], processes: int) -> Iterator[Outcome]:
    """Try all faults, some side by side, in order."""
    places: Queue[Path] = Queue()
    for _ in range(processes):
        places.put(copied())

    known = Known()

    def one(mutant: Mutant) -> Outcome:
        place = places.get()
        try:
            return tried(mutant, place, known)
        finally:
            places.put(place)

    try:
        with ThreadPoolExecutor(processes) as pool:
            yield from pool.map(one, mutants)
    finally:
        while not places.empty():
            shutil.rmtree(places.get())


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--count", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument(
        "--only", nargs="*", default=[], metavar="FILE", help="modules to draw from"
    )
    parser.add_argument("--output", type=Path, help="JSON of all outcomes, without the sources")
    options = parser.parse_args()
    outcomes = []
    for outcome in survey(drawn(options.count, options.seed, options.only), options.processes):
        mutant = outcome.mutant
        what = f"{mutant.before.splitlines()[0]}  ->  {mutant.after.splitlines()[0]}"
        print(f"{outcome.result:9}{mutant.file}:{mutant.line}: {what}", flush=True)
        outcomes.append(outcome)
    modules: dict[str, list[bool]] = defaultdict(list)
    for outcome in outcomes:
        if outcome.result != "broken":
            modules[outcome.mutant.file].append(outcome.result != "survived")
    for file, noticed in sorted(modules.items()):
        print(f"{sum(noticed):3} of {len(noticed):3}  {file}")
    total = sum(map(sum, modules.values()))
    count = sum(map(len, modules.values()))
    print(f"noticed: {total} of {count} ({100 * total / max(1, count):.0f} %)")
    if options.output is not None:
        rows = [asdict(each) for each in outcomes]
        for row in rows:
            del row["mutant"]["source"]
        options.output.write_text(json.dumps(rows, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
