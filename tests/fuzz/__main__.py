"""Feed one reader with damaged files, or all of them.

python -m tests.fuzz store --count 20000
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from fuzz.runner import fuzz
from fuzz.targets import TARGETS


def main() -> int:
    """Run, and print what became of the files; 1 where there were faults."""
    parser = argparse.ArgumentParser(description="Feed readers with damaged files.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(TARGETS)}")
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--start", type=int, default=0, help="number of the first mutation")
    options = parser.parse_args()
    faults = 0
    for name in options.names or TARGETS:
        result = fuzz(name, options.count, seed=options.seed, start=options.start)
        counts = ", ".join(f"{number} {kind}" for kind, number in sorted(result.counts.items()))
        print(
            f"{name}: {counts}; slowest {result.slowest_s:.1f} s, "
            f"at most {result.most_bytes / 1e6:.0f} MB more",
            flush=True,
        )
        seen: set[str] = set()
        for number, text in result.faults:
            last = "\n".join(line[:200] for line in text.strip().splitlines()[-7:])
            if last not in seen and len(seen) < 12:
                print(f"  {number}: {last}", flush=True)
            seen.add(last)
        faults += len(result.faults)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
