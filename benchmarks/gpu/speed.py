"""Part 4: speed and peak memory beside the naive published form, in the same run.

The naive forms are the field's scripts': float32 with PyTorch's defaults, the usual memory layout,
one view a time; for ACR, CAMs and the walk they are written out in the benchmarks of those stages,
which this part calls.
"""

from __future__ import annotations

import gc
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.gpu.cases import CLASSES, Case, case, timed_step
from benchmarks.gpu.part import Findings, Line, guarded
from benchmarks.harness import ROOT, Row, load_rows
from benchmarks.machine import copy_rate, flop_counter, product_rate
from wsss.data.transforms import normalise
from wsss.irn.random_walk import random_walk_batch
from wsss.models.backbones import build_backbone
from wsss.models.deeplab import DeepLab
from wsss.runtime.compute import Compute, setup
from wsss.segmentation.inference import class_probabilities, segmenter, views_of

# Wanted of the walk.
WALK_MS = 5.0
SIZE = (375, 500)


def run(device: str, end: float) -> Findings:
    """Measure in order of importance, each by itself."""
    on = setup(Compute(device=device, threads=4, workers=0, deterministic=True), seed=0)
    if on.type != "cuda":
        yield Line("speed", "not run: no GPU")
        return
    yield guarded("rates of this GPU", partial(_rates, device))
    few = ["--precision", "auto", "--no-memory", "--repeats", "2"]
    table = [
        ("acr_step", ["--steps", "10", "--warm-up", "3", "--compare-steps", "0"]),
        ("cam_export", ["--network", "resnet38", "--images", "4", *few]),
        ("cam_export", ["--network", "lite0", "--images", "8", *few]),
    ]
    for name, words in table:
        if time.monotonic() > end:
            return
        yield from _benchmark(name, [*words, "--device", device], end)
    for function in (_walk, _prediction):
        if time.monotonic() > end:
            return
        yield guarded(function.__name__[1:], partial(function, on))
    for name in (
        "IRNet, ResNet-50",
        "DeepLab largefov, ResNet-38",
        "DeepLab v2, ResNet-101",
        "cam, Lite0",
        "acr, Lite0",
        "IRNet, Lite0",
        "DeepLab v3plus, Lite0",
        "mct, DeiT-S",
        "acr-vit, DeiT-S",
    ):
        if time.monotonic() > end:
            return
        yield guarded(f"step, {name}", partial(_step, case(name), on))


def _rates(device: str) -> Line:
    bf16 = product_rate(torch.bfloat16, device) / 1e12
    fp32 = product_rate(torch.float32, device) / 1e12
    copied = copy_rate(device) / 1e12
    return Line(
        "rates of this GPU",
        f"bfloat16 products {bf16:.0f} TFLOP/s, float32 (TF32 where PyTorch allows it) "
        f"{fp32:.0f} TFLOP/s, copies {copied:.2f} TB/s",
        values={"bfloat16_tflops": bf16, "float32_tflops": fp32, "copy_tb_s": copied},
    )


def _benchmark(name: str, words: list[str], end: float) -> Findings:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.jsonl"
        path.touch()
        command = [sys.executable, "-m", f"benchmarks.{name}", *words, "--rows", str(path)]
        try:
            limit = max(5.0, end - time.monotonic())
            done = subprocess.run(command, cwd=ROOT, check=False, timeout=limit)
        except subprocess.TimeoutExpired:
            yield Line(f"{name} {' '.join(words)}", "ran out of time", holds=False)
            return
        rows = load_rows(path)
    if not rows:
        yield Line(f"{name} {' '.join(words)}", f"exit status {done.returncode}", holds=False)
    for row in rows:
        yield _line(row)


def _line(row: Row) -> Line:
    what = f"{row.stage}, {row.backbone}, {row.case}, {row.precision}, batch {row.batch}"
    each = 1e3 * row.ours.wall_s / row.images
    words = f"{each:.1f} ms an image"
    values: dict[str, Any] = {"ms_an_image": each, "same": row.same}
    reached: bool | None = None
    if row.naive is not None:
        ratio = row.naive.wall_s / row.ours.wall_s
        words += f", {ratio:.1f} times the naive form's rate"
        values["ratio"] = ratio
        if row.target is not None and row.precision == "bfloat16":
            reached = ratio >= row.target
            words += f" (wanted {row.target:g})"
    if row.peak_mb and row.naive_peak_mb:
        share = row.peak_mb / row.naive_peak_mb
        words += f", {row.peak_mb / 1e3:.2f} GB, {share:.0%} of the naive form's"
        values["memory_share"] = share
    if row.floor_s:
        share = row.floor_s / row.ours.wall_s
        words += f", {share:.0%} of the rate of products"
        values["of_floor"] = share
    return Line(
        what, f"{words}; {row.same}", holds=row.agrees and reached in (None, True), values=values
    )


def seconds(function: Callable[[], object], repeats: int, warm_up: int = 3) -> float:
    """Return the median time of a call on the GPU."""
    times = []
    for number in range(repeats + warm_up):
        torch.cuda.synchronize()
        start = time.perf_counter()
        function()
        torch.cuda.synchronize()
        if number >= warm_up:
            times.append(time.perf_counter() - start)
    return statistics.median(times)


def _walk(device: torch.device) -> Line:
    batch, height, width = 8, *((side - 1) // 4 + 1 for side in SIZE)
    generator = torch.Generator().manual_seed(0)
    cams = [torch.rand(2, height, width, generator=generator).to(device) for _ in range(batch)]
    edges = [torch.rand(height, width, generator=generator).to(device) for _ in range(batch)]
    each = 1e3 * seconds(lambda: random_walk_batch(cams, edges), 10) / batch
    return Line(
        f"walk, {batch} images of 500x375, 2 classes, 256 steps",
        f"{each:.2f} ms an image (wanted under {WALK_MS:g})",
        holds=each < WALK_MS,
        values={"ms_an_image": each},
    )


def _prediction(device: torch.device) -> Line:
    config = case("DeepLab largefov, ResNet-38").settings()
    torch.manual_seed(0)
    network = DeepLab(build_backbone(config.backbone), CLASSES + 1, config.head).eval()
    naive = DeepLab(build_backbone(config.backbone), CLASSES + 1, config.head).to(device).eval()
    rng = np.random.default_rng(0)
    scales = (0.5, 0.75, 1.0, 1.25, 1.5)
    views = views_of(rng.integers(0, 255, (*SIZE, 3), dtype=np.uint8), scales)
    segments = segmenter(network, precision="auto", device=device)

    @torch.no_grad()
    def one_by_one() -> Tensor:
        total = torch.zeros(CLASSES + 1, *SIZE)
        for view in views.images:
            for flipped in (False, True):
                image = normalise(view[None].float() / 255, naive.backbone.normalisation)
                image = image.flip(-1) if flipped else image
                logits = naive(image.to(device))
                big = F.interpolate(logits, size=SIZE, mode="bilinear", align_corners=False)
                found = big.softmax(1)[0].cpu()
                total += found.flip(-1) if flipped else found
        return total / (2 * len(views.images))

    ours = seconds(lambda: class_probabilities(segments, views, mirror=True).argmax(0).cpu(), 5)
    theirs = seconds(one_by_one, 3, warm_up=1)
    return Line(
        "prediction, largefov on ResNet-38, 500x375, 5 scales x mirror",
        f"{1e3 * ours:.0f} ms an image, {theirs / ours:.1f} times the naive form's rate",
        values={"ms_an_image": 1e3 * ours, "ratio": theirs / ours},
    )


def _step(each: Case, device: torch.device) -> Line:
    naive_s, naive_bytes, _ = _measured(each, device, naive=True)
    ours_s, ours_bytes, flops = _measured(each, device, naive=False)
    config = each.settings()
    rate = flops / ours_s / product_rate(torch.bfloat16, str(device))
    return Line(
        f"step, {each.name}, crop {config.crop_px}, batch {config.batch_size}",
        f"{1e3 * ours_s:.0f} ms ({config.batch_size / ours_s:.0f} images/s), "
        f"{ours_bytes / 1e9:.2f} GB; the same in float32, not channels-last, not deterministic: "
        f"{1e3 * naive_s:.0f} ms, {naive_bytes / 1e9:.2f} GB; {rate:.0%} of the rate of products",
        values={
            "seconds": ours_s,
            "naive_seconds": naive_s,
            "bytes": ours_bytes,
            "naive_bytes": naive_bytes,
            "of_products": rate,
        },
    )


def _measured(each: Case, device: torch.device, *, naive: bool) -> tuple[float, int, int]:
    """Return seconds, peak bytes and FLOPs of a step."""
    config = each.settings(precision="float32" if naive else "auto")
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    # Published scripts leave PyTorch its choice of kernels.
    torch.use_deterministic_algorithms(not naive)
    torch.backends.cudnn.allow_tf32 = naive
    try:
        task = each.task(config, device)
        if naive:
            for module in task.modules.values():
                module.to(memory_format=torch.contiguous_format)
        take = timed_step(each, config, task, device, 100)
        numbers = iter(range(100))
        time_s = seconds(lambda: take(next(numbers)), 8)
        peak = torch.cuda.max_memory_allocated(device)
        with flop_counter() as counter:
            take(99)
    finally:
        torch.use_deterministic_algorithms(True)
    return time_s, peak, counter.get_total_flops()
