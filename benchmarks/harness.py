"""What the benchmarks share: the machine's description and rates, timing, memory, one table.

A benchmark is a module run as `python -m benchmarks.NAME` from the repository's root. It measures
the naive form of a stage and ours in alternation, checks that both give the same, and hands its
rows to `finish`. The machine is rarely quiet, so beside wall time there is processor time: another
program on the same cores makes the first longer, the second hardly.
"""

from __future__ import annotations

import argparse
import csv
import ctypes
import gc
import importlib
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.machine import machine, synchronise
from wsss.files import atomic_file, write_text

ROOT = Path(__file__).resolve().parents[1]
RESULTS = Path(__file__).resolve().parent / "results"
MB = 1e6


# --- time -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Timing:
    """Median seconds of a call: on the wall, and of this process's and its children's processor."""

    wall_s: float
    cpu_s: float


def _cpu_seconds() -> float:
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def interleave(
    forms: Mapping[str, Callable[[], object]],
    *,
    repeats: int = 5,
    warm_up: int = 1,
    device: str = "cpu",
) -> dict[str, Timing]:
    """Time several forms in turn (A B A B ...), so that what disturbs one disturbs all.

    Args:
        forms: Name and function; what a function returns is dropped.
        repeats: Timed calls of each.
        warm_up: Calls of each before the first that counts.
        device: Waited for after each call if a GPU.
    """
    for _ in range(warm_up):
        for function in forms.values():
            function()
    on = torch.device(device)
    wall: dict[str, list[float]] = {name: [] for name in forms}
    cpu: dict[str, list[float]] = {name: [] for name in forms}
    for _ in range(repeats):
        for name, function in forms.items():
            gc.collect()
            synchronise(on)
            busy, start = _cpu_seconds(), time.perf_counter()
            function()
            synchronise(on)
            wall[name].append(time.perf_counter() - start)
            cpu[name].append(_cpu_seconds() - busy)
    return {n: Timing(float(np.median(wall[n])), float(np.median(cpu[n]))) for n in forms}


def timed(function: Callable[[], object]) -> Timing:
    """Time one call, without a warm-up: for what takes minutes."""
    return interleave({"once": function}, repeats=1, warm_up=0)["once"]


# --- memory, in a process of its own ----------------------------------------------------------


@dataclass(frozen=True)
class Measured:
    """One call in a process of its own.

    Attributes:
        result: What it returned, through JSON.
        seconds: Wall time of the call.
        cpu_s: Processor time of the call, its finished children's included.
        peak_mb: Most resident memory (1e6 bytes) of the process during the call.
        grown_mb: The same less what was resident before the call.
    """

    result: Any
    seconds: float
    cpu_s: float
    peak_mb: float
    grown_mb: float


def status_mb(key: str) -> float:
    """One of the kernel's counts for this process in 1e6 bytes: VmRSS (now), VmHWM (highest)."""
    text = Path("/proc/self/status").read_text(encoding="utf-8")
    line = next(line for line in text.splitlines() if line.startswith(key + ":"))
    return int(line.split()[1]) * 1024 / MB


def measure(prepare: Callable[..., Callable[[], Any]], **arguments: Any) -> Measured:
    """Call `prepare(**arguments)()` in a process of its own; only the second call is measured.

    Args:
        prepare: A function at the top of a module of this package. It makes the inputs, warms up
            what it wants, and returns the function to measure, whose result JSON can hold.
        arguments: Of `prepare`, such as JSON can hold.

    Raises:
        MemoryError: The process was killed or a GPU had too little memory.
        RuntimeError: It failed.
    """
    module = prepare.__module__
    if module == "__main__":  # run with `python -m`: the child needs the real name
        spec = sys.modules["__main__"].__spec__
        assert spec is not None, "run it as python -m benchmarks.NAME"
        module = spec.name
    words = [sys.executable, "-m", "benchmarks.harness", f"{module}:{prepare.__name__}"]
    words += [json.dumps({"threads": torch.get_num_threads(), "arguments": arguments})]
    done = subprocess.run(words, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode in (3, -9):
        raise MemoryError(f"{prepare.__name__} had too little memory")
    if done.returncode != 0:
        raise RuntimeError(f"{prepare.__name__} failed in a process of its own")
    return Measured(**json.loads(done.stdout.splitlines()[-1]))


def _child(where: str, message: str) -> None:
    module, _, name = where.partition(":")
    settings = json.loads(message)
    torch.set_num_threads(settings["threads"])
    try:
        function = getattr(importlib.import_module(module), name)(**settings["arguments"])
        gc.collect()
        # What was freed goes back to the system, or the call would reuse it and seem to need less.
        with suppress(OSError, AttributeError):
            ctypes.CDLL("libc.so.6").malloc_trim(0)
        # Sets the highest count back to what is resident now.
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
        before, busy, start = status_mb("VmRSS"), _cpu_seconds(), time.perf_counter()
        result = function()
        seconds, cpu_s = time.perf_counter() - start, _cpu_seconds() - busy
    except torch.OutOfMemoryError:
        raise SystemExit(3) from None
    peak = status_mb("VmHWM")
    print(json.dumps(asdict(Measured(result, seconds, cpu_s, peak, peak - before))))


# --- the table --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        stage: The stage, as users know it.
        case: Sizes: image, classes, number of images.
        ours: Timing of our form.
        same: How equal both results are, in words, with the number.
        agrees: Whether that is equal enough; the benchmark fails otherwise.
        naive: Timing of the naive form; None: not measured at this size.
        backbone: Network, or "-".
        precision: Of our form.
        batch: Images a step of our form.
        images: Images that one timed call works on.
        peak_mb: Most resident memory that our form adds, 1e6 bytes.
        naive_peak_mb: The same of the naive form.
        floor_s: Seconds below which this machine cannot come, from FLOPs or bytes.
        floor: What the floor counts.
        target: Ratio to reach; None: none set.
        note: Anything a reader must know.
    """

    stage: str
    case: str
    ours: Timing
    same: str
    agrees: bool = True
    naive: Timing | None = None
    backbone: str = "-"
    precision: str = "float32"
    batch: int = 1
    images: int = 1
    peak_mb: float | None = None
    naive_peak_mb: float | None = None
    floor_s: float | None = None
    floor: str = ""
    target: float | None = None
    note: str = ""
    threads: int = field(default_factory=torch.get_num_threads)

    def cells(self) -> dict[str, str]:
        """The row as it is printed."""
        naive = self.naive
        return {
            "stage": self.stage,
            "case": self.case,
            "backbone": self.backbone,
            "precision": self.precision,
            "batch": str(self.batch),
            "threads": str(self.threads),
            "naive": "-" if naive is None else seconds(naive.wall_s),
            "ours": seconds(self.ours.wall_s),
            "ratio": "-" if naive is None else _ratio(naive.wall_s, self.ours.wall_s),
            "ratio, processor time": "-" if naive is None else _ratio(naive.cpu_s, self.ours.cpu_s),
            "to reach": "-" if self.target is None else f"{self.target:g}",
            "images/s": f"{self.images / self.ours.wall_s:.3g}",
            "peak MB": _number(self.peak_mb),
            "naive's MB": _number(self.naive_peak_mb),
            "floor": "-" if self.floor_s is None else f"{seconds(self.floor_s)} ({self.floor})",
            "of the floor": "-"
            if self.floor_s is None
            else f"{self.floor_s / self.ours.wall_s:.0%}",
            "same result": self.same if self.agrees else f"NO: {self.same}",
            "note": self.note,
        }


def _ratio(naive: float, ours: float) -> str:
    value = naive / max(ours, 1e-9)
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f}"


def seconds(value: float) -> str:
    """Seconds with the unit that suits them."""
    if value < 0.1:
        return f"{1e3 * value:.3g} ms"
    return f"{value:.3g} s" if value < 1000 else f"{value:.0f} s"


def markdown(rows: Sequence[Row]) -> str:
    """Return the rows as a Markdown table; columns in which nothing stands are left out."""
    cells = [row.cells() for row in rows]
    names = [name for name in cells[0] if any(row[name] not in ("", "-") for row in cells)]
    widths = {name: max(len(name), *(len(row[name]) for row in cells)) for name in names}
    lines = [" | ".join(name.ljust(widths[name]) for name in names)]
    lines.append(" | ".join("-" * widths[name] for name in names))
    lines += [" | ".join(row[name].ljust(widths[name]) for name in names) for row in cells]
    return "\n".join(f"| {line} |" for line in lines) + "\n"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Give a benchmark the options that all of them have."""
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--save", metavar="NAME", help="keep the table in benchmarks/results/")
    parser.add_argument("--rows", type=Path, help="add the rows to this file, as JSON lines")


def finish(rows: Sequence[Row], options: argparse.Namespace) -> int:
    """Print the table, keep it where asked; return the exit status: 1 where results differ."""
    print("\n".join(machine().lines()))
    print(markdown(rows))
    if options.rows:
        with options.rows.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(asdict(row)) + "\n" for row in rows)
    if options.save:
        save(rows, options.save)
    return 0 if all(row.agrees for row in rows) else 1


def load_rows(path: Path) -> list[Row]:
    """Read the rows that benchmarks have added to a file."""
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines():
        values = json.loads(line)
        for name in ("ours", "naive"):
            values[name] = None if values[name] is None else Timing(**values[name])
        rows.append(Row(**values))
    return rows


def save(rows: Sequence[Row], name: str, *, folder: Path | None = None) -> Path:
    """Write the table as Markdown, and its numbers as CSV beside it; return the former's path.

    The files are named after the machine and its versions: `MACHINE_NAME.md`.
    """
    folder = folder or RESULTS
    path = folder / f"{machine().slug}_{name}.md"
    path.parent.mkdir(parents=True, exist_ok=True)
    heading = "  \n".join(machine().lines())
    write_text(path, f"# {name}\n\n{heading}\n\n{markdown(rows)}")
    with atomic_file(path.with_suffix(".csv")) as temporary, temporary.open("w", newline="") as out:
        plain = [f.name for f in fields(Row) if f.name not in ("ours", "naive")]
        names = [*plain, "ours_s", "ours_cpu_s", "naive_s", "naive_cpu_s"]
        writer = csv.DictWriter(out, names, lineterminator="\n")
        writer.writeheader()
        for row in rows:
            values = {name: getattr(row, name) for name in plain}
            values |= {"ours_s": row.ours.wall_s, "ours_cpu_s": row.ours.cpu_s}
            if row.naive is not None:
                values |= {"naive_s": row.naive.wall_s, "naive_cpu_s": row.naive.cpu_s}
            writer.writerow(values)
    print(f"kept: {path}")
    return path


if __name__ == "__main__":
    _child(sys.argv[1], sys.argv[2])
