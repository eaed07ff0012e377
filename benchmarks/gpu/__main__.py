"""`make gpu`: what only a GPU can show, in a few minutes, with a report.

    python -m benchmarks.gpu                          # everything, at most 8 minutes
    python -m benchmarks.gpu --parts agreement speed  # these parts
    python -m benchmarks.gpu --device cpu             # tries the parts that can do without one

Each part is a process of its own, in order of importance; what it found is kept as it comes, so
that a failure costs no more than its part. Nothing is installed and nothing fetched: a part whose
package is missing says so. Parts that measure time or memory run alone, the others side by side.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.harness import ROOT
from benchmarks.machine import machine
from wsss.files import write_text

# Part, and whether it may run beside others: correctness does not depend on them, time does.
PARTS: dict[str, bool] = {
    "agreement": True,
    "determinism": True,
    "chain": True,
    "speed": False,
    "sizes": False,
    "fits": False,
    "pictures": False,
}
TITLES = {
    "agreement": "On the GPU as on the CPU",
    "determinism": "The same bytes twice",
    "chain": "The workflow, killed and resumed",
    "speed": "Speed and memory",
    "sizes": "Pictures of new sizes",
    "fits": "What fits",
    "pictures": "Real pictures",
}
# The fewest seconds that are worth a part's start.
LEAST_S = 15.0


def _start(name: str, device: str, seconds: float, lines: Path) -> subprocess.Popen[bytes]:
    words = ["--device", device, "--seconds", f"{seconds:.0f}", "--lines", str(lines)]
    with lines.with_suffix(".log").open("wb") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "benchmarks.gpu.part", name, *words],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )


def _finish(process: subprocess.Popen[bytes], end: float) -> str:
    """Wait for a part and say how it ended, if not well."""
    try:
        # Some time beyond its own limit, which it looks at between its findings.
        code = process.wait(timeout=max(1.0, end + 20 - time.monotonic()))
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return "stopped: out of time"
    return "" if code == 0 else f"ended with exit status {code}"


def _lines(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def report(found: dict[str, dict[str, Any]]) -> str:
    """Return the report as Markdown."""
    driver = _driver()
    text = ["# What this GPU shows", "", *(f"{line}  " for line in machine().lines())]
    text += [driver, ""] if driver else [""]
    for name, part in found.items():
        text += [f"## {TITLES[name]}", "", f"{part['seconds']:.0f} s. {part['ended']}".strip(), ""]
        text += ["| | what | found |", "|---|---|---|"] if part["lines"] else []
        for line in part["lines"]:
            mark = {None: "", True: "ok", False: "**no**"}[line["holds"]]
            text.append(f"| {mark} | {line['what']} | {line['found'].replace('|', '/')} |")
        text.append("")
    return "\n".join(text)


def _driver() -> str:
    if not torch.cuda.is_available():
        return "no GPU: the parts that need one were not run"
    properties = torch.cuda.get_device_properties(0)
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, check=False, timeout=20)
        driver = done.stdout.strip().splitlines()[0]
    except (OSError, IndexError, subprocess.TimeoutExpired):
        driver = "unknown"
    return (
        f"{properties.name}, {properties.total_memory / 1e9:.0f} GB, "
        f"{properties.multi_processor_count} multiprocessors, driver {driver}, "
        f"CUDA {torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the parts, write the report after each; return 1 if something does not hold."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", default="cuda", help="cpu: what can be tried without a GPU")
    parser.add_argument("--minutes", type=float, default=8.0, help="stops by itself then")
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--output", type=Path, default=ROOT / "results" / "gpu")
    options = parser.parse_args(arguments)
    begin = time.monotonic()
    end = begin + 60 * options.minutes
    options.output.mkdir(parents=True, exist_ok=True)
    found: dict[str, dict[str, Any]] = {}
    chosen = [name for name in PARTS if name in options.parts]
    groups = [[name for name in chosen if PARTS[name]], *([n] for n in chosen if not PARTS[n])]
    missing = options.device.startswith("cuda") and not torch.cuda.is_available()
    for group in filter(None, groups):
        started = {}
        for name in group:
            if missing:
                found[name] = {"seconds": 0.0, "ended": "not run: no GPU", "lines": []}
                print(f"{name}: not run: no GPU")
                continue
            left = end - time.monotonic()
            if left < LEAST_S:
                found[name] = {"seconds": 0.0, "ended": "not run: out of time", "lines": []}
                continue
            lines = options.output / f"{name}.jsonl"
            lines.unlink(missing_ok=True)
            started[name] = (time.monotonic(), _start(name, options.device, left, lines), lines)
        for name, (at, process, lines) in started.items():
            ended = _finish(process, end)
            took = time.monotonic() - at
            found[name] = {"seconds": took, "ended": ended, "lines": _lines(lines)}
            print(f"{name}: {took:.0f} s {ended}", flush=True)
            for line in found[name]["lines"]:
                mark = {None: "  ", True: "ok", False: "NO"}[line["holds"]]
                print(f"  {mark} {line['what']}: {line['found']}", flush=True)
        write_text(options.output / "report.md", report(found))
        summary = {"machine": machine().lines(), "gpu": _driver(), "parts": found}
        write_text(options.output / "report.json", json.dumps(summary, indent=1) + "\n")
    print(f"{time.monotonic() - begin:.0f} s; {options.output / 'report.md'}")
    bad = [line for part in found.values() for line in part["lines"] if line["holds"] is False]
    failed = [name for name, part in found.items() if part["ended"].startswith("ended")]
    return 1 if bad or failed else 0


if __name__ == "__main__":
    sys.exit(main())
