"""All benchmarks at their small sizes, one table: `make bench`.

    python -m benchmarks                  # some minutes on 2 quiet cores
    python -m benchmarks --full           # the sizes that the targets are for: an hour and more
    python -m benchmarks --only random_walk threshold_sweep

Each runs in a process of its own, one after the other. The table is printed and kept in
`benchmarks/results/`, named after the hardware and the versions. The exit status is 1 if a
benchmark failed or two results that must be equal are not.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.harness import ROOT, load_rows, markdown, save
from benchmarks.machine import machine

SMALL: dict[str, list[str]] = {
    "random_walk": [],
    "cam_export": [],
    "acr_step": [],
    "lite_step": ["--crop", "128", "--batch", "4", "--rounds", "1"],
    "threshold_sweep": [],
    "clip_es": [],
    "core_scaling": [],
    "loading": [],
    "scaling": [],
}
FULL: dict[str, list[str]] = {
    "random_walk": ["--full"],
    "cam_export": ["--full"],
    "acr_step": ["--full", "--batch", "1", "--steps", "1", "--compare-steps", "0"],
    "lite_step": [],
    "threshold_sweep": ["--full"],
    "clip_es": [],
    "core_scaling": ["--full"],
    "loading": ["--full"],
    "scaling": [
        "--sizes",
        "1000",
        "10000",
        "82000",
        "--export-sizes",
        "1000",
        "10000",
        "20000",
        "--save",
        "scaling",
    ],
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--full", action="store_true", help="the sizes that the targets are for")
    parser.add_argument("--only", nargs="+", choices=list(SMALL), default=list(SMALL))
    parser.add_argument("--no-save", action="store_true", help="only print the table")
    options = parser.parse_args()
    failed = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.jsonl"
        path.touch()
        for name in options.only:
            words = (FULL if options.full else SMALL)[name]
            print(f"== {name} {' '.join(words)}", flush=True)
            start = time.monotonic()
            command = [sys.executable, "-m", f"benchmarks.{name}", *words, "--rows", str(path)]
            if subprocess.run(command, cwd=ROOT, check=False).returncode != 0:
                failed.append(name)
            print(f"   {time.monotonic() - start:.0f} s\n", flush=True)
        rows = load_rows(path)
    if rows:
        print("\n".join(machine().lines()))
        print(markdown(rows))
        if not options.no_save:
            save(rows, "full" if options.full else "small")
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
