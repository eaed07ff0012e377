"""One ACR step (RU + CU): this project's against the plain form, and bfloat16 against float32.

    python -m benchmarks.acr_step                              # Lite0, a small decoder, on a CPU
    python -m benchmarks.acr_step --full --batch 1 --steps 1   # ResNet-38 on a CPU: minutes
    python -m benchmarks.acr_step --device cuda                # the run `voc`: crop 256, batch 8

The plain form is written the way the field's scripts do it: float32, the decoder called once for
each of the five reconstructions, and networks run again for what an earlier pass already gave
(class logits and CAM, class logits and X). That both take the same step is checked first, without
dropout. Every timing has a process of its own, so that its peak memory is its own; the forms take
turns.

Pictures are generated, weights are random unless `--weights` names an ImageNet file of the
backbone: neither changes times or memory; the comparison of losses means most with the file.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.modules.dropout import _DropoutNd

from benchmarks.harness import (
    Measured,
    Row,
    Timing,
    add_options,
    finish,
    measure,
)
from benchmarks.machine import flop_counter, product_rate
from wsss.cam.losses import SMALLEST_SEGMENT_PX, normalise_cam
from wsss.cam.methods.acr import AcrMethod
from wsss.cam.methods.acr_config import AcrConfig, AcrSettings
from wsss.cam.methods.step_inputs import StepInputs
from wsss.project.config import load_config
from wsss.runtime.compute import Device, setup
from wsss.runtime.settings import replace
from wsss.training import descent
from wsss.training.step import StepContext

CLASSES = 20
# Relative difference of losses, and of what a step moved, that rounding may leave.
SAME = 1e-3
TERMS = (
    "ru_total",
    "ru_full",
    "ru_target",
    "ru_nontarget",
    "cu_total",
    "cu_target",
    "cu_nontarget",
)


def settings(options: argparse.Namespace, precision: str) -> AcrSettings:
    """The run `voc`, or its small stand-in, with what the options change."""
    if options.small:
        acr = AcrConfig(decode_px=64, decoder_depth=4, decoder_width=16)
        config = AcrSettings(crop_px=128, batch_size=4, acr=acr)
    else:
        config = load_config(folder=Path(__file__).resolve().parents[1]).run("voc").stages["cam"]
        weights = config.backbone.weights if options.weights else "none"
        config = replace(config, backbone=replace(config.backbone, weights=weights))
    batch = options.batch or config.batch_size
    return replace(config, precision=precision, batch_size=batch)


def build(config: AcrSettings, device: torch.device, weights: Path | None) -> AcrMethod:
    torch.manual_seed(0)
    return AcrMethod(config, CLASSES, device=device, weights_file=weights)


def batch_of(config: AcrSettings, step: int, device: torch.device) -> dict[str, Any]:
    """Smooth pictures with a square in each tagged class's colour; a function of `step` alone."""
    rng = np.random.default_rng(step)
    count, side = config.batch_size, config.crop_px
    coarse = torch.from_numpy(rng.random((count, 3, 6, 6), dtype=np.float32))
    image = F.interpolate(coarse, size=(side, side), mode="bilinear")
    image += torch.from_numpy(rng.normal(0, 0.03, image.shape).astype(np.float32))
    label = torch.zeros(count, CLASSES)
    for number in range(count):
        for tag in rng.choice(CLASSES, 2, replace=False):
            label[number, tag] = 1
            extent = side // 4
            top, left = rng.integers(0, side - extent, 2)
            colour = torch.tensor([tag % 3 / 2, tag // 3 % 3 / 2, tag // 9 / 2])[:, None, None]
            image[number, :, top : top + extent, left : left + extent] = colour
    valid = torch.ones(count, 1, side, side, dtype=torch.bool)
    return {
        "image": image.clamp(0, 1).to(device),
        "valid": valid.to(device),
        "label": label.to(device),
    }


def context_of(step: int, total: int, device: torch.device) -> StepContext:
    return StepContext(
        device=device,
        epoch=0,
        step=step,
        total_steps=total,
        generator=torch.Generator().manual_seed(step),
        rng=np.random.default_rng(step),
    )


def plain_losses(method: AcrMethod, inputs: StepInputs) -> Iterator[Tensor]:
    """RU's loss, then (after its optimiser step) CU's, a reconstruction and a pass at a time."""
    classifier, net, side = method.classifier, method.reconstructor, inputs.side_px
    image, w, grid = inputs.image, method.config.acr.weights, inputs.grid
    assert grid is not None
    rows = torch.arange(len(image), device=image.device)

    def up(x: Tensor) -> Tensor:
        return F.interpolate(x, size=(side, side), mode="bilinear", align_corners=False)

    def target_map(cam: Tensor) -> Tensor:
        return up(normalise_cam(cam)[rows, inputs.target][:, None])

    def class_loss(logits: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(logits, inputs.label)

    classifier.eval()
    with torch.no_grad():
        a = target_map(classifier(inputs.x)[1])
    segment, other = a + (1 - a) * grid, (1 - a) + a * grid
    logits, _ = net.encode(inputs.x)
    _, x = net.encode(inputs.x)
    full = net.decode(up(x).detach())
    from_target = net.decode(up(x) * segment)
    from_other = net.decode(up(x) * other)
    kept = other.sum(dim=(1, 2, 3)) > SMALLEST_SEGMENT_PX
    errors = (a * (1 - grid) * (from_other - image)).abs().mean(dim=(1, 2, 3))
    yield (
        w.ru_class * class_loss(logits)
        + w.ru_full * (full - image).abs().mean()
        + w.ru_target * ((1 - a) * (1 - grid) * (from_target - image)).abs().mean()
        + w.ru_nontarget * (errors[kept].mean() if bool(kept.any()) else 0.0 * errors.sum())
    )
    net.eval().requires_grad_(False)
    classifier.train()
    logits, _ = classifier(inputs.x)
    _, cam = classifier(inputs.x)
    a = target_map(cam)
    with torch.no_grad():
        _, x = net.encode(inputs.x)
    winner = (up(cam).argmax(1) == inputs.target[:, None, None])[:, None]
    from_target = net.decode(up(x) * a)
    from_other = net.decode(up(x) * (1 - a))
    yield (
        w.cu_class * class_loss(logits)
        - w.cu_target * ((a == 0).float() * (from_target - image)).abs().mean()
        - w.cu_nontarget * (a.detach() * winner * (from_other - image)).abs().mean()
    )


def plain_step(method: AcrMethod, batch: dict[str, Any], context: StepContext) -> dict[str, float]:
    trained = [p for p in method.reconstructor.parameters() if p.requires_grad]
    losses = plain_losses(method, method.prepare(batch, context))
    totals = {}
    for name, label in (("reconstructor", "ru_total"), ("classifier", "cu_total")):
        loss = next(losses)
        method.optimizers[name].zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        method.optimizers[name].step()
        totals[label] = float(loss.detach())
    for parameter in trained:
        parameter.requires_grad_(True)
    method.reconstructor.train()
    return totals


def take_step(plain: bool, method: AcrMethod, step: int, total: int) -> dict[str, float]:
    batch = batch_of(method.config, step, method.device)
    torch.manual_seed(step)  # dropout
    context = context_of(step, total, method.device)
    if plain:
        return plain_step(method, batch, context)
    return {name: float(value) for name, value in descent.take_step(method, batch, context).items()}


def check_same_step(options: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    """Take one step in both forms, without dropout; compare losses and what moved."""
    results = []
    for plain in (False, True):
        method = build(settings(options, "float32"), device, options.weights)
        for module in method.modules.values():
            for part in module.modules():
                if isinstance(part, _DropoutNd):
                    part.p = 0.0
        before = {n: p.detach().clone() for n, p in _parameters(method)}
        losses = take_step(plain, method, 0, 1)
        results.append((losses, {n: p.detach() - before[n] for n, p in _parameters(method)}))
    (ours, ours_moved), (theirs, theirs_moved) = results
    loss = max(abs(ours[n] - theirs[n]) / abs(theirs[n]) for n in ("ru_total", "cu_total"))
    square = sum(
        float((ours_moved[n] - d).double().square().sum()) for n, d in theirs_moved.items()
    )
    length = sum(float(d.double().square().sum()) for d in theirs_moved.values())
    return {"losses": loss, "step": (square / length) ** 0.5}


def _parameters(method: AcrMethod) -> Iterator[tuple[str, torch.nn.Parameter]]:
    for key, module in method.modules.items():
        for name, parameter in module.named_parameters():
            if parameter.requires_grad:
                yield f"{key}.{name}", parameter


def form(arguments: dict[str, Any], plain: bool, precision: str) -> Callable[[], Any]:
    """Return some timed steps of one form, for a process of its own.

    They return the median of their seconds, the peak memory on a GPU, and the form's FLOPs.
    """
    options = from_words(arguments)
    device = setup(Device(device=options.device, threads=options.threads), seed=0)
    method = build(settings(options, precision), device, options.weights)
    total = options.steps + options.warm_up

    def run() -> dict[str, float]:
        times, busy = [], []
        for step in range(total):
            start, cpu = time.perf_counter(), time.process_time()
            # It ends with a read-out, so the device has finished.
            take_step(plain, method, step, total)
            times.append(time.perf_counter() - start)
            busy.append(time.process_time() - cpu)
        cuda = device.type == "cuda"
        peak = torch.cuda.max_memory_allocated(device) / 1e6 if cuda else 0.0
        with flop_counter() as counter:
            take_step(plain, method, 0, total)
        kept = slice(options.warm_up, None)
        return {
            "seconds": float(np.median(times[kept])),
            "cpu_s": float(np.median(busy[kept])),
            "peak_mb": peak,
            "flops": counter.get_total_flops(),
        }

    return run


def same_step(arguments: dict[str, Any]) -> Callable[[], Any]:
    options = from_words(arguments)
    device = setup(Device(device=options.device, threads=options.threads), seed=0)
    return lambda: check_same_step(options, device)


def some_losses(arguments: dict[str, Any], precision: str) -> Callable[[], Any]:
    """Return a short training from the same start on the same pictures and draws."""
    options = from_words(arguments)
    device = setup(Device(device=options.device, threads=options.threads), seed=0)
    method = build(settings(options, precision), device, options.weights)
    steps = options.compare_steps

    def run() -> list[dict[str, float]]:
        found = [take_step(False, method, step, steps) for step in range(steps)]
        return [{name: losses[name] for name in TERMS} for losses in found]

    return run


def words_of(options: argparse.Namespace) -> dict[str, Any]:
    """The options as JSON can hold them."""
    return {name: str(v) if isinstance(v, Path) else v for name, v in vars(options).items()}


def from_words(arguments: dict[str, Any]) -> argparse.Namespace:
    options = argparse.Namespace(**arguments)
    options.weights = None if options.weights is None else Path(options.weights)
    return options


def rows_of(options: argparse.Namespace, device: torch.device) -> list[Row]:
    config, words = settings(options, "float32"), words_of(options)
    print(f"decoder of depth {config.acr.decoder_depth} and width {config.acr.decoder_width} at ")
    print(f"{config.decoded_px} px, preset {config.acr.preset}", flush=True)
    try:
        same = measure(same_step, arguments=words).result
    except MemoryError:
        same = None
    runs: dict[str, list[Measured]] = {"plain float32": [], "float32": [], "bfloat16": []}
    for _ in range(options.rounds):
        for name, kept in runs.items():
            plain, precision = name.startswith("plain"), name.split()[-1]
            with suppress(MemoryError):
                kept.append(measure(form, arguments=words, plain=plain, precision=precision))
    naive = runs.pop("plain float32")
    rows = []
    for precision, kept in runs.items():
        if not kept:
            print(f"{precision}: out of memory")
            continue
        equal = same is not None and max(same["losses"], same["step"]) < SAME
        exact = (
            "not compared"
            if same is None
            else (f"in float32 losses to {same['losses']:.0e}, what moved to {same['step']:.0e}")
        )
        rate = product_rate(getattr(torch, precision), str(device))
        rows.append(
            Row(
                stage="ACR step (RU + CU)",
                case=f"crop {config.crop_px}",
                backbone=config.backbone.name,
                precision=precision,
                batch=config.batch_size,
                images=config.batch_size,
                ours=_timing(kept),
                naive=_timing(naive) if naive else None,
                same=exact,
                agrees=equal or same is None,
                peak_mb=_peak(kept),
                naive_peak_mb=_peak(naive) if naive else None,
                floor_s=kept[0].result["flops"] / rate,
                floor="FLOPs",
                target=(3.0 if device.type == "cuda" else 2.0) if options.full else None,
            )
        )
    return rows


def _timing(runs: Sequence[Measured]) -> Timing:
    best = min((run.result for run in runs), key=lambda result: float(result["seconds"]))
    return Timing(best["seconds"], best["cpu_s"])


def _peak(runs: Sequence[Measured]) -> float:
    return max(run.result["peak_mb"] or run.grown_mb for run in runs)


def compare_losses(options: argparse.Namespace) -> None:
    if options.compare_steps < 1:
        return
    words = words_of(options)
    try:
        exact, rounded = (
            measure(some_losses, arguments=words, precision=precision).result
            for precision in ("float32", "bfloat16")
        )
    except MemoryError:
        print("losses: out of memory")
        return
    print(f"losses over {options.compare_steps} steps, same start, pictures and draws:")
    print(
        "{:<14}{:>10}{:>10}{:>12}{:>12}".format(
            "term", "float32", "bfloat16", "mean diff", "max diff"
        )
    )
    for name in TERMS:
        a = np.array([losses[name] for losses in exact])
        b = np.array([losses[name] for losses in rounded])
        off = np.abs(a - b) / np.maximum(np.abs(a).mean(), 1e-9)
        print(f"{name:<14}{a.mean():>10.4f}{b.mean():>10.4f}{off.mean():>12.1%}{off.max():>12.1%}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--small", action="store_true", help="Lite0, crop 128, a small decoder")
    parser.add_argument("--full", action="store_true", help="the run `voc` on a CPU, too")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch", type=int, help="instead of the run's")
    parser.add_argument("--steps", type=int, help="timed steps (20 on a GPU, else 3)")
    parser.add_argument("--warm-up", type=int, help="steps before them (2; with --full on a CPU 1)")
    parser.add_argument("--rounds", type=int, default=1, help="turns of each form")
    parser.add_argument(
        "--compare-steps", type=int, help="50 on a GPU, else 0: losses of a training"
    )
    parser.add_argument("--weights", type=Path, help="ImageNet weights of ResNet-38d")
    add_options(parser)
    options = parser.parse_args()
    cuda = options.device.startswith("cuda")
    options.small = options.small or not (cuda or options.full)
    options.steps = options.steps or (20 if cuda else 3)
    if options.warm_up is None:
        options.warm_up = 1 if options.full and not cuda else 2
    if options.compare_steps is None:
        options.compare_steps = 50 if cuda else 0
    device = setup(Device(device=options.device, threads=options.threads), seed=0)
    rows = rows_of(options, device)
    compare_losses(options)
    return finish(rows, options)


if __name__ == "__main__":
    sys.exit(main())
