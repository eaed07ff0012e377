"""Part 1: a step of every training on the GPU against the CPU; bfloat16 against float32."""

from __future__ import annotations

import time
from functools import partial

import torch

from benchmarks.gpu.cases import CASES, Case, case, steps, trained, without_dropout
from benchmarks.gpu.part import Findings, Line, guarded
from wsss.runtime.compute import Compute, setup

# Relative difference of losses that another order of summation leaves in float32.
LOSS = 1e-4
# The same of single terms, some of which count pixels on one side of a threshold.
TERM = 1e-3
# The same of what a step moved, over all parameters together: gradients cancel where losses do not.
MOVED = 2e-2
BFLOAT16_STEPS = 50
# Mean relative difference of the losses of a training of 50 steps in bfloat16, of the whole loss.
BFLOAT16_LOSS = 0.05


def run(device: str, end: float) -> Findings:
    """Compare every case, then bfloat16 where there are pretrained weights."""
    on = setup(Compute(device=device, threads=torch.get_num_threads(), workers=0), seed=0)
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    for each in CASES:
        if time.monotonic() > end:
            return
        yield guarded(f"one step, {each.name}", partial(_same_step, each, on))
    for name in ("acr, Lite0", "cam, Lite0", "IRNet, Lite0", "DeepLab v3plus, Lite0"):
        if time.monotonic() > end:
            return
        what = f"{BFLOAT16_STEPS} steps in bfloat16, {name}"
        yield guarded(what, partial(_bfloat16, case(name), on))


def _same_step(each: Case, device: torch.device) -> Line:
    config = each.settings(**each.small, precision="float32")
    losses, moved = [], []
    for on in (torch.device("cpu"), device):
        task = without_dropout(each.task(config, on))
        before = {name: p.detach().cpu().double().clone() for name, p in trained(task)}
        losses.append(steps(each, config, task, on, 1)[0])
        moved.append({n: p.detach().cpu().double() - before[n] for n, p in trained(task)})
    exact, found = losses
    off = {k: abs(found[k] - exact[k]) / max(abs(exact[k]), 1e-3) for k in exact}
    totals = [off[name] for name in ("loss", "ru_total", "cu_total") if name in off]
    worst = max(off, key=lambda name: off[name])
    square = sum(float((moved[1][n] - d).square().sum()) for n, d in moved[0].items())
    length = sum(float(d.square().sum()) for d in moved[0].values())
    step = (square / max(length, 1e-30)) ** 0.5
    return Line(
        f"one step, {each.name}",
        f"loss to {max(totals):.0e}, terms to {off[worst]:.0e} ({worst}), what the step moved to "
        f"{step:.0e} of the CPU's (float32)",
        holds=max(totals) < LOSS and off[worst] < TERM and step < MOVED,
        values={"losses": off, "step": step},
    )


def _bfloat16(each: Case, device: torch.device) -> Line:
    found = []
    for precision in ("float32", "bfloat16"):
        config = each.settings(crop_px=256, precision=precision, batch_size=8)
        task = without_dropout(each.task(config, device))
        found.append(steps(each, config, task, device, BFLOAT16_STEPS))
    exact, rounded = found
    off = {
        name: sum(abs(a[name] - b[name]) for a, b in zip(exact, rounded, strict=True))
        / max(sum(abs(a[name]) for a in exact), 1e-6)
        for name in exact[0]
    }
    worst = max(off, key=lambda name: off[name])
    return Line(
        f"{BFLOAT16_STEPS} steps in bfloat16, {each.name}",
        f"the loss is off by {off['loss']:.1%} on average, of all terms {worst} most, "
        f"{off[worst]:.1%}",
        holds=off["loss"] < BFLOAT16_LOSS,
        values=off,
    )
