"""Put small faults into the library, one at a time, and see whether its tests notice.

    python tests/mutants.py --count 400 --seed 0 --processes 2 --output mutants.json
    python tests/mutants.py --only wsss/irn/labels.py --count 20

Modules are drawn by the seed, and three faults of each, as far as `--count` allows; more of larger
ones where it allows more than three of all. A fault is a comparison, an operator or a number
changed, a condition turned round, a keyword argument or a statement left away; messages,
annotations and docstrings stay as they are. Each goes into a copy of the checkout, where the fast
tests run that execute the line, the quick ones first, until one fails:

    python -m pip install pytest-cov
    python -m pytest -m "not slow" -n 2 --cov=wsss --cov-context=test --cov-report= \\
        --durations=0 --durations-min=0.05 > durations.txt
    python tests/mutants.py --coverage .coverage --durations durations.txt

says which those are; of very many, some (`covering.py`). For lines that run while a module is
imported, or in another process than the test's, which is not recorded, they are those that execute
anything of the module or import it; without a recording the files that import it, then its room's.

Printed are all faults, and how many of each module's and room's were noticed. A person has to look
at those that survived. Some change nothing that anybody could see: where `result` in the output is
set to "equivalent", they are left out of what could have been noticed.
After new tests

    python tests/mutants.py --again mutants.json --tests FILE... --output mutants.json

tries once more what survived: also for what a test notices in a process of its own, and a recording
cannot tell. On two cores with much other work, two processes took 17 minutes for 99 faults, some 20
seconds of a process for each, and the recording 32 minutes; continuous integration runs neither.
`ignored_settings.py` is the other half: settings that the library would not look at.
"""

from __future__ import annotations

import argparse
import ast
import json
import shutil
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from queue import Queue
from typing import NamedTuple

from covering import Covering
from drawn_faults import ROOT, Mutant, again, drawn
from forked_tests import ForkedTests, write_source

LIMIT_S = 300.0
CHECK_S = 3600.0
FIRST = 12


@dataclass(frozen=True)
class Outcome:
    """What came of a fault.

    It is `killed`, `survived`, `timeout`, which is killed, `unrun`, `broken`, or `equivalent`,
    which only a person can say. Unrun is a module that no fast test imports or executes. Broken are
    tests that fail, or cannot run, without any fault: they would notice nothing.
    """

    mutant: Mutant
    result: str
    tests: tuple[str, ...]
    failed: str = ""

    @property
    def noticed(self) -> bool:
        return self.result in ("killed", "timeout")

    @property
    def counts(self) -> bool:
        return self.result not in ("broken", "equivalent")

    def __str__(self) -> str:
        what = f"{_short(self.mutant.before)}  ->  {_short(self.mutant.after)}"
        return f"{self.result:11}{self.mutant.file}:{self.mutant.line}: {what}"


class Tests(NamedTuple):
    """Tests, or files of tests, and how long they may take together."""

    names: tuple[str, ...]
    limit_s: float


def _short(code: str) -> str:
    return code.splitlines()[0]


@cache
def imported_by_tests() -> dict[Path, set[str]]:
    """Return the modules that each file of tests imports, and the names that it takes from them."""
    found = {}
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        imported: set[str] = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module:
                imported |= {node.module}
                imported |= {f"{node.module}.{each.name}" for each in node.names}
            elif isinstance(node, ast.Import):
                imported |= {each.name for each in node.names}
        found[path.relative_to(ROOT)] = imported
    return found


def files_of(file: str) -> tuple[list[str], list[str]]:
    """Return the test files that import a module, and the others of its room."""
    module = file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    direct: list[str] = []
    room: list[str] = []
    alone: list[str] = []
    for path, imported in imported_by_tests().items():
        if module in imported:
            direct.append(str(path))
        elif file.split("/")[1] in path.parts:
            room.append(str(path))
        elif path.parent.name == "tests":
            alone.append(str(path))
    # Commands and what else has no folder of tests is tested by those that lie in none.
    return direct, room or alone


def tests_for(mutant: Mutant, covering: Covering | None) -> Tests:
    """Choose the tests, or files of tests, to run for a fault; what imports the module is first."""
    direct, room = files_of(mutant.file)
    if covering is None:
        return Tests((*direct, *room), LIMIT_S)
    tree = ast.parse((ROOT / mutant.file).read_text())
    names = (
        covering.tests_of(mutant.file, tree, mutant.line)
        or covering.tests_of_module(mutant.file, direct)
        or covering.tests_in(room)
    )
    ordered = sorted(names, key=lambda name: name.split("::")[0] not in direct)
    return Tests(tuple(ordered), 60 + 5 * sum(map(covering.time_s, names)))


def tried(mutant: Mutant, runner: ForkedTests, tests: Tests) -> Outcome:
    """Put a fault into a copy of the checkout, run the tests, and take it out again."""
    path = runner.place / mutant.file
    kept = path.read_text()
    write_source(path, mutant.source)
    try:
        # Most faults are noticed by the first few tests, so that the others need no collecting.
        for names in (tests.names[:FIRST], tests.names[FIRST:]):
            failed = runner.failures(names, tests.limit_s) if names else []
            if failed is None:
                return Outcome(mutant, "timeout", names)
            if failed:
                return Outcome(mutant, "killed", names, failed[0])
    finally:
        write_source(path, kept)
    return Outcome(mutant, "survived" if tests.names else "unrun", tests.names)


def checked(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """Run the tests that noticed something without any fault; where they fail, they are broken."""

    def needed(outcome: Outcome) -> tuple[str, ...]:
        return (outcome.failed,) if "::" in outcome.failed else outcome.tests

    tests = {name for each in outcomes if each.noticed for name in needed(each)}
    with copy() as runner:
        failed = runner.failures(sorted(tests), CHECK_S, first=False) if tests else []
    if failed is None or "import" in failed:
        raise SystemExit("without any fault the tests cannot run either")
    return [
        replace(each, result="broken")
        if each.noticed and any(name.startswith(needed(each)) for name in failed)
        else each
        for each in outcomes
    ]


@contextmanager
def copy() -> Iterator[ForkedTests]:
    """Make a copy of the checkout, of what Git knows, and run tests in it."""
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        place = Path(folder)
        listed = subprocess.run(
            ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True, text=True
        )
        for name in filter(None, listed.stdout.split("\0")):
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, place / name)
        runner = ForkedTests(place)
        try:
            yield runner
        finally:
            runner.close()


def survey(
    mutants: Sequence[Mutant], processes: int, tests: Callable[[Mutant], Tests]
) -> Iterator[Outcome]:
    """Try all faults, some side by side, in order."""
    runners: Queue[ForkedTests] = Queue()

    def one(mutant: Mutant) -> Outcome:
        runner = runners.get()
        try:
            return tried(mutant, runner, tests(mutant))
        finally:
            runners.put(runner)

    with ExitStack() as stack:
        for _ in range(processes):
            runners.put(stack.enter_context(copy()))
        pool = stack.enter_context(ThreadPoolExecutor(processes))
        yield from pool.map(one, mutants)


def earlier(path: Path) -> tuple[list[Outcome], list[Outcome], list[Mutant]]:
    """Return what an earlier survey settled, what it did not, and the faults to try again."""
    settled, open_ones, mutants = [], [], []
    for row in json.loads(path.read_text()):
        old = Mutant(**row["mutant"], source="")
        outcome = Outcome(old, row["result"], tuple(row["tests"]), row["failed"])
        found = again(old)
        if outcome.noticed or not outcome.counts:
            settled.append(outcome)
        elif found is None:
            print(f"gone: {outcome}")
        else:
            open_ones.append(outcome)
            mutants.append(found)
    return settled, open_ones, mutants


def table(outcomes: Sequence[Outcome]) -> Iterator[str]:
    """Yield how many faults of each module, of each room, and of all were noticed."""
    modules: dict[str, list[Outcome]] = defaultdict(list)
    rooms: dict[str, list[Outcome]] = defaultdict(list)
    for outcome in outcomes:
        parts = outcome.mutant.file.split("/")
        modules["/".join(parts[1:])].append(outcome)
        rooms[parts[1] if len(parts) > 2 else "(none)"].append(outcome)
    everything = ("all", list(outcomes))
    for name, those in [*sorted(modules.items()), *sorted(rooms.items()), everything]:
        noticed = sum(each.noticed for each in those)
        count = sum(each.counts for each in those)
        equivalent = sum(each.result == "equivalent" for each in those)
        yield (
            f"{name:44}{noticed:4} of {count:4}  {100 * noticed / max(1, count):4.0f} %"
            f"  equivalent: {equivalent}"
        )


def write(path: Path, outcomes: Sequence[Outcome]) -> None:
    """Write all outcomes, without the sources."""
    rows = [asdict(each) for each in outcomes]
    for row in rows:
        del row["mutant"]["source"]
    path.write_text(json.dumps(rows, indent=1))


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--count", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument(
        "--only", nargs="*", default=[], metavar="FILE", help="modules to draw from"
    )
    parser.add_argument("--again", type=Path, help="an earlier output: try what survived")
    parser.add_argument("--tests", nargs="*", metavar="FILE", help="run these for every fault")
    parser.add_argument("--coverage", type=Path, help="data file of coverage, with contexts")
    parser.add_argument("--durations", type=Path, help="output of pytest --durations=0")
    parser.add_argument("--output", type=Path, help="JSON of all outcomes, without the sources")
    options = parser.parse_args()
    covering = None
    if options.coverage is not None:
        covering = Covering.read(options.coverage, options.durations, ROOT)

    def tests(mutant: Mutant) -> Tests:
        if options.tests:
            return Tests(tuple(options.tests), LIMIT_S)
        return tests_for(mutant, covering)

    outcomes: list[Outcome] = []
    open_ones: list[Outcome] = []
    if options.again is not None:
        outcomes, open_ones, mutants = earlier(options.again)
    else:
        mutants = drawn(options.count, options.seed, options.only)
    tried_now: list[Outcome] = []
    for outcome in survey(mutants, options.processes, tests):
        print(outcome, flush=True)
        tried_now.append(outcome)
        if options.output is not None:
            write(options.output, [*outcomes, *tried_now, *open_ones[len(tried_now) :]])
    outcomes += checked(tried_now)
    for outcome in outcomes:
        if outcome.result == "broken":
            print(outcome)
    print("\n".join(table(outcomes)))
    if options.output is not None:
        write(options.output, outcomes)
    return 0


if __name__ == "__main__":
    sys.exit(main())
