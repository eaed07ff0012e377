"""Part 2: two trainings of ten steps leave the same bytes, with `deterministic: true`."""

from __future__ import annotations

import hashlib
import time
import warnings
from functools import partial

import torch

from benchmarks.gpu.cases import CASES, Case, steps
from benchmarks.gpu.part import Findings, Line, guarded
from wsss.irn.random_walk import random_walk
from wsss.runtime.compute import Compute, setup

STEPS = 10


def run(device: str, end: float) -> Findings:
    """Train every case twice; walk the same maps twice."""
    on = setup(Compute(device=device, threads=torch.get_num_threads(), workers=0), seed=0)
    yield guarded("walk, twice", partial(_walk, on))
    for each in CASES:
        if time.monotonic() > end:
            return
        yield guarded(f"{STEPS} steps twice, {each.name}", partial(_twice, each, on))


def _twice(each: Case, device: torch.device) -> Line:
    config = each.settings(**each.small)
    digests = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(2):
            task = each.task(config, device)
            steps(each, config, task, device, STEPS)
            digest = hashlib.sha256()
            for module in task.modules.values():
                for tensor in module.state_dict().values():
                    digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
            digests.append(digest.hexdigest())
    complaints = {str(w.message) for w in caught if "determin" in str(w.message)}
    same = digests[0] == digests[1]
    words = "the same bytes" if same else "OTHER bytes"
    if complaints:
        words += f"; PyTorch warns: {' / '.join(sorted(complaints))[:300]}"
    return Line(
        f"{STEPS} steps twice, {each.name}",
        words,
        holds=same and not complaints,
        values={"sha256": digests},
    )


def _walk(device: torch.device) -> Line:
    generator = torch.Generator().manual_seed(0)
    cam = torch.rand(4, 2, 94, 125, generator=generator).to(device)
    edge = torch.rand(4, 94, 125, generator=generator).to(device)
    first, second = (random_walk(cam, edge).cpu() for _ in range(2))
    same = torch.equal(first, second)
    return Line("walk, twice", "the same bytes" if same else "OTHER bytes", holds=same)
