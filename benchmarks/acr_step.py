"""One ACR step (RU + CU): this project's against the plain form, and bfloat16 against float32.

    python benchmarks/acr_step.py                              # Lite0, a small decoder, on a CPU
    python benchmarks/acr_step.py --full --batch 1 --steps 1   # ResNet-38 on a CPU: minutes
    python benchmarks/acr_step.py --device cuda                # the run `voc`: crop 256, batch 8

The plain form is written the way the field's scripts do it: float32, the decoder called once for
each of the five reconstructions, and networks run again for what an earlier pass already gave
(class logits and CAM, class logits and X). That both take the same step is checked first, without
dropout. Every timing has a process of its own, so that its peak memory is its own.

Pictures are generated, weights are random unless `--weights` names an ImageNet file of the
backbone: neither changes times or memory; the comparison of losses means most with the file.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.modules.dropout import _DropoutNd
from torch.utils.flop_counter import FlopCounterMode

from wsss.cam.acr import AcrMethod, StepInputs
from wsss.cam.config import AcrConfig, CamConfig
from wsss.cam.losses import SMALLEST_SEGMENT_PX, normalise_cam
from wsss.config import load_config
from wsss.training.compute import Compute, setup
from wsss.training.loop import StepContext

CLASSES = 20
WARM_UP = 2
TERMS = (
    "ru_total",
    "ru_full",
    "ru_target",
    "ru_nontarget",
    "cu_total",
    "cu_target",
    "cu_nontarget",
)


def settings(options: argparse.Namespace, precision: str) -> CamConfig:
    """The run `voc`, or its small stand-in, with what the options change."""
    if options.small:
        acr = AcrConfig(decode_px=64, decoder_depth=4, decoder_width=16)
        config = CamConfig(crop_px=128, batch_size=4, acr=acr)
    else:
        config = load_config(folder=Path(__file__).resolve().parents[1]).run("voc").stages["cam"]
        weights = config.backbone.weights if options.weights else "none"
        config = replace(config, backbone=replace(config.backbone, weights=weights))
    batch = options.batch or config.batch_size
    return replace(config, precision=precision, batch_size=batch)


def build(config: CamConfig, device: torch.device, weights: Path | None) -> AcrMethod:
    torch.manual_seed(0)
    return AcrMethod(config, CLASSES, device=device, weights_file=weights)


def batch_of(config: CamConfig, step: int, device: torch.device) -> dict[str, Any]:
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
    return {name: float(value) for name, value in method.step(batch, context).items()}


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


def status_mb(key: str) -> float:
    text = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(next(line for line in text.splitlines() if line.startswith(key)).split()[1]) / 1024


def measure(options: argparse.Namespace, device: torch.device, plain: bool, precision: str) -> Any:
    """Median seconds of a step, peak memory, and FLOPs of the form that is measured."""
    before = status_mb("VmRSS:")
    method = build(settings(options, precision), device, options.weights)
    total = options.steps + WARM_UP
    times = []
    for step in range(total):
        start = time.perf_counter()
        take_step(plain, method, step, total)  # ends with a read-out, so the device has finished
        times.append(time.perf_counter() - start)
    cuda = device.type == "cuda"
    peak = torch.cuda.max_memory_allocated(device) / 2**20 if cuda else status_mb("VmHWM:") - before
    with FlopCounterMode(display=False) as counter:
        take_step(plain, method, 0, total)
    kept = times[WARM_UP:]
    return {"seconds": float(np.median(kept)), "peak_mb": peak, "flops": counter.get_total_flops()}


def train_steps(options: argparse.Namespace, device: torch.device, precision: str) -> Any:
    """The losses of a short training from the same start on the same pictures and draws."""
    method = build(settings(options, precision), device, options.weights)
    steps = options.compare_steps
    found = [take_step(False, method, step, steps) for step in range(steps)]
    return [{name: losses[name] for name in TERMS} for losses in found]


def product_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Measured FLOPs a second of a large matrix product."""
    side = 8192 if device.type == "cuda" else 1024
    a = torch.rand(side, side, device=device).to(dtype)
    times = []
    for _ in range(6):
        start = time.perf_counter()
        product = a @ a
        float(product[0, 0])
        times.append(time.perf_counter() - start)
    return float(2 * side**3 / min(times))


def child(options: argparse.Namespace, what: str) -> Any:
    """Run one part in a process of its own; None where its memory did not suffice."""
    words = [sys.executable, __file__, *sys.argv[1:], "--part", what]
    done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode == 3:
        return None
    if done.returncode != 0:
        raise SystemExit(f"{what} failed")
    return json.loads(done.stdout.splitlines()[-1])


def run_part(options: argparse.Namespace, device: torch.device) -> Any:
    kind, _, precision = options.part.partition(" ")
    if kind == "same":
        return check_same_step(options, device)
    if kind == "rate":
        return product_rate(device, getattr(torch, precision))
    if kind == "losses":
        return train_steps(options, device, precision)
    return measure(options, device, kind == "plain", precision)


def machine(device: torch.device, threads: int) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    names = [line.split(": ")[1] for line in text.splitlines() if "model name" in line]
    return f"{names[0] if names else platform.machine()}, {threads} thread(s)"


def report(options: argparse.Namespace, device: torch.device) -> None:
    config = settings(options, "float32")
    print(f"{machine(device, options.threads)}, PyTorch {torch.__version__}")
    print(f"{config.backbone.name}, crop {config.crop_px}, batch {config.batch_size}, ", end="")
    acr = config.acr
    print(f"decoder of depth {acr.decoder_depth} and width {acr.decoder_width} at ", end="")
    print(f"{config.decoded_px} px, preset {acr.preset}")
    same = child(options, "same")
    if same is not None:
        print(f"the same step: losses to {same['losses']:.0e}, what moved to {same['step']:.0e}")
    rows = {
        name: child(options, name) for name in ("plain float32", "ours float32", "ours bfloat16")
    }
    first = rows["plain float32"]
    header = ("form", "s/step", "images/s", "peak MB", "ratio", "memory", "of the floor")
    print("{:<14}{:>9}{:>10}{:>10}{:>8}{:>8}{:>14}".format(*header))
    for name, row in rows.items():
        if row is None:
            print(f"{name:<14}  out of memory")
            continue
        rate = child(options, f"rate {name.split()[1]}")
        share = row["flops"] / rate / row["seconds"]
        ratio = f"{first['seconds'] / row['seconds']:.2f}" if first else "-"
        memory = f"{row['peak_mb'] / first['peak_mb']:.0%}" if first else "-"
        print(
            f"{name:<14}{row['seconds']:>9.3f}{config.batch_size / row['seconds']:>10.2f}", end=""
        )
        print(f"{row['peak_mb']:>10.0f}{ratio:>8}{memory:>8}{share:>14.0%}")
    print("(floor: the form's own FLOPs over the measured rate of matrix products)")
    compare_losses(options)


def compare_losses(options: argparse.Namespace) -> None:
    if options.compare_steps < 1:
        return
    exact, rounded = child(options, "losses float32"), child(options, "losses bfloat16")
    if exact is None or rounded is None:
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--small", action="store_true", help="Lite0, crop 128, a small decoder")
    parser.add_argument("--full", action="store_true", help="the run `voc` on a CPU, too")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch", type=int, help="instead of the run's")
    parser.add_argument("--steps", type=int, help="timed steps (20 on a GPU, else 3)")
    parser.add_argument("--compare-steps", type=int, help="50 on a GPU, else 5; 0: none")
    parser.add_argument("--weights", type=Path, help="ImageNet weights of ResNet-38d")
    parser.add_argument("--part", help=argparse.SUPPRESS)
    options = parser.parse_args()
    cuda = options.device.startswith("cuda")
    options.small = options.small or not (cuda or options.full)
    options.steps = options.steps or (20 if cuda else 3)
    if options.compare_steps is None:
        options.compare_steps = 50 if cuda else 5
    device = setup(Compute(options.device, options.threads, 0), seed=0)
    if not options.part:
        report(options, device)
        return
    try:
        print(json.dumps(run_part(options, device)))
    except torch.OutOfMemoryError:
        raise SystemExit(3) from None


if __name__ == "__main__":
    main()
