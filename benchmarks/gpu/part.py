"""What a part of `make gpu` is: a module with a `run(device, minutes)` that yields lines.

A part runs as a process of its own (`python -m benchmarks.gpu.part NAME ...`), so that a failure, a
crash of the driver included, costs that part and nothing else. Its lines are kept as they come.
"""

from __future__ import annotations

import argparse
import importlib
import json
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Line:
    """One finding.

    Attributes:
        what: What was looked at.
        found: What came out, in words with the number and its unit.
        holds: Whether that is as it should be; None: a measurement, with nothing to hold.
        values: The numbers, for report.json.
    """

    what: str
    found: str
    holds: bool | None = None
    values: dict[str, Any] = field(default_factory=dict)


Findings = Iterator[Line]


def guarded(what: str, function: Callable[[], Line]) -> Line:
    """Return the finding, or the failure as one: the next one has a right to its turn."""
    try:
        return function()
    except Exception as error:  # the report names whatever it was
        last = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{Path(last.filename).name}:{last.lineno}"
        words = " ".join(str(error).split())[:400]
        traceback.print_exc()
        return Line(what, f"{type(error).__name__} at {place}: {words}", holds=False)


def main() -> None:
    """Run one part and append its lines to a file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("name")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--seconds", type=float, default=480.0)
    parser.add_argument("--lines", type=Path, required=True)
    options = parser.parse_args()
    module = importlib.import_module(f"benchmarks.gpu.{options.name}")
    end = time.monotonic() + options.seconds
    with options.lines.open("a", encoding="utf-8") as file:
        for line in module.run(options.device, end):
            file.write(json.dumps(asdict(line)) + "\n")
            file.flush()
            mark = {None: " ", True: "ok", False: "NO"}[line.holds]
            print(f"{mark:>2}  {line.what}: {line.found}", flush=True)


if __name__ == "__main__":
    main()
