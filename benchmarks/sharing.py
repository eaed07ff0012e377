"""How long OpenMP's threads shall spin: a training alone, and beside a busy process on each core.

    python -m benchmarks.sharing                       # 5 minutes on a quiet machine
    python -m benchmarks.sharing --rounds 5 --seconds 20 --save sharing

Every way of waiting is a process of its own with that in its environment; all take turns, so that a
machine that slows down slows all of them. Printed are images a second, and beside them what share
of the library's own way alone they are: a way is good that keeps 97 % alone, and more than 45 %
(its share is a half, less what switching costs) where other processes keep each core busy.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from benchmarks.harness import RESULTS, ROOT
from benchmarks.machine import machine
from wsss.files import write_text
from wsss.runtime.cores import usable_cores
from wsss.runtime.openmp import SPINNING, VARIABLES

WAYS: Mapping[str, Mapping[str, str]] = {
    "the library's own": {},
    "passive": {"OMP_WAIT_POLICY": "PASSIVE"},
    **{f"{n} turns": {"GOMP_SPINCOUNT": str(n)} for n in (300, 1000, 3000, 10000, 30000, 100000)},
    "as `wsss` sets it": SPINNING,
}
BUSY = "while True: pass"


@contextmanager
def busy(processes: int) -> Iterator[None]:
    """Keep cores busy until the block ends."""
    started = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(processes)]
    try:
        yield
    finally:
        for process in started:
            process.kill()
            process.wait()


def images_per_second(way: Mapping[str, str], options: argparse.Namespace) -> float:
    """Train in a process that waits in one way."""
    kept = {name: value for name, value in os.environ.items() if name not in VARIABLES}
    words = [f"--{name}={getattr(options, name)}" for name in ("threads", "batch", "seconds")]
    words += [f"--crop-px={options.crop_px}", "--child"]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.sharing", *words],
        cwd=ROOT,
        env={**kept, **way},
        check=True,
        capture_output=True,
        text=True,
    )
    return float(json.loads(done.stdout))


def train(options: argparse.Namespace) -> float:
    """Return images a second of EfficientNet-Lite0's training as a classifier, two steps left out.

    Its many small operations make threads wait for each other more often than those of wide
    networks do.
    """
    import torch
    import torch.nn.functional as F

    from wsss.models.backbones import build_backbone
    from wsss.models.config import BackboneConfig

    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    backbone = build_backbone(BackboneConfig(weights="none"))
    optimizer = torch.optim.SGD(backbone.parameters(), lr=0.01, momentum=0.9)
    images = torch.rand(options.batch, 3, options.crop_px, options.crop_px)
    steps, start = 0, 0.0
    while steps < 3 or time.perf_counter() - start < options.seconds:
        if steps == 2:
            start = time.perf_counter()
        optimizer.zero_grad()
        logits = backbone(images)[-1].mean((2, 3))
        F.binary_cross_entropy_with_logits(logits, torch.zeros_like(logits)).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        steps += 1
    return (steps - 2) * options.batch / (time.perf_counter() - start)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=usable_cores())
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--crop-px", type=int, default=128)
    parser.add_argument("--seconds", type=float, default=8.0, help="of each training")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--save", metavar="NAME", help="keep the table in benchmarks/results/")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(train(options)))
        return 0
    found: dict[tuple[str, int], list[float]] = {}
    for _ in range(options.rounds):
        for others in (0, len(os.sched_getaffinity(0))):
            with busy(others):
                for name, way in WAYS.items():
                    rate = images_per_second(way, options)
                    found.setdefault((name, others), []).append(rate)
                    print(f"{name}, beside {others} others: {rate:.2f} images/s", flush=True)
    medians = {key: statistics.median(rates) for key, rates in found.items()}
    whole = medians["the library's own", 0]
    cases = sorted({others for _, others in medians})
    lines = [
        "| waiting | " + " | ".join(f"beside {n} busy, images/s | share" for n in cases) + " |",
        "|---|" + "---|" * 2 * len(cases),
        *(
            f"| {name} | "
            + " | ".join(f"{medians[name, n]:.2f} | {medians[name, n] / whole:.0%}" for n in cases)
            + " |"
            for name in WAYS
        ),
    ]
    text = "\n".join([*machine().lines(), f"- {options.threads} threads", "", *lines, ""])
    print(text)
    if options.save:
        write_text(RESULTS / f"{machine().slug}_{options.save}.md", text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
