"""Part 6: what fits: peak memory of a step by batch and crop, and the largest for each card."""

from __future__ import annotations

import gc
import time
from functools import partial
from typing import Any

import torch

from benchmarks.gpu.cases import Case, case, timed_step
from benchmarks.gpu.part import Findings, Line, guarded
from wsss.runtime.compute import Compute, setup

CARDS_GB = (8, 11, 16, 24, 40, 80)
# What a driver, a context and fragmentation take of a card, as a share and in bytes.
KEPT_SHARE, KEPT_BYTES = 0.05, 0.7e9
# Case: crops and batches that are measured. The decoder of `voc` halves eight times.
GRID: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
    "acr, ResNet-38": ((256, 512), (1, 2, 8)),
    "acr, Lite0": ((256, 384, 512), (8, 16)),
    "cam, Lite0": ((256, 384, 512), (8, 32)),
    "IRNet, ResNet-50": ((321, 512), (8, 32)),
    "IRNet, Lite0": ((321, 512), (8, 32)),
    "DeepLab largefov, ResNet-38": ((321, 448), (4, 10)),
    "DeepLab v2, ResNet-101": ((321, 448), (4, 10)),
    "DeepLab v3plus, Lite0": ((256, 321, 512), (8, 32)),
    "mct, DeiT-S": ((224, 384), (16, 64)),
    "acr-vit, DeiT-S": ((256,), (2, 8)),
}


def run(device: str, end: float) -> Findings:
    """Measure each case's grid; memory is linear in the batch, so two batches tell the rest."""
    on = setup(Compute(device=device, threads=4, workers=0), seed=0)
    if on.type != "cuda":
        yield Line("what fits", "not run: no GPU")
        return
    for name, (crops, batches) in GRID.items():
        for crop in crops:
            if time.monotonic() > end:
                return
            what = f"memory, {name}, crop {crop}"
            yield guarded(what, partial(_peaks, case(name), crop, batches, on))


def _peaks(each: Case, crop: int, batches: tuple[int, ...], device: torch.device) -> Line:
    peaks = {batch: peak_bytes(each, crop, batch, device) for batch in batches}
    fits = largest_batches(peaks)
    words = ", ".join(f"batch {batch}: {peak / 1e9:.2f} GB" for batch, peak in peaks.items())
    largest = ", ".join(f"{card} GB: {n or 'none'}" for card, n in fits.items())
    return Line(
        f"memory, {each.name}, crop {crop}",
        f"{words}; largest batch of a card of {largest}",
        values={"crop_px": crop, "peaks": peaks, "largest": fits},
    )


def peak_bytes(each: Case, crop: int, batch: int, device: torch.device) -> int:
    """Return the most that PyTorch had reserved over three steps."""
    config: Any = each.settings(crop_px=crop, batch_size=batch)
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    task = each.task(config, device)
    take = timed_step(each, config, task, device, 3)
    for step in range(3):
        take(step)
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_reserved(device)


def largest_batches(peaks: dict[int, int]) -> dict[int, int]:
    """Return by card the largest batch that fits, from a line through the two largest batches."""
    (few, low), (many, high) = sorted(peaks.items())[-2:]
    slope = max((high - low) / (many - few), 1.0)
    fixed = high - slope * many
    fits = {}
    for card in CARDS_GB:
        room = card * 1024**3 * (1 - KEPT_SHARE) - KEPT_BYTES - fixed
        fits[card] = max(0, int(room // slope))
    return fits
