"""A training step of the light networks on a CPU: as they are, and made cheaper.

    python -m benchmarks.lite_step      # the trainings of `voc-lite-best`: crop 256, batch 8

The naive form is the same step of the same network without `wsss.models.lean_training.lighten` and
with the C library's own ways with freed memory. Pictures, labels and weights are generated; the
step is the stage's own. Both forms have processes of their own, in turn, and the quickest of the
rounds counts: what else the machine does only adds. That both give the same gradients is checked
first.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from benchmarks.acr_step import batch_of, context_of
from benchmarks.harness import ROOT, Measured, Row, Timing, add_options, finish, measure
from wsss.cam.methods.plain import PlainMethod
from wsss.cam.methods.plain_config import PlainSettings
from wsss.models.lean_training import lighten
from wsss.project.config import load_config
from wsss.runtime.compute import Device, setup
from wsss.runtime.memory import keep_freed_memory
from wsss.runtime.settings import replace
from wsss.segmentation.config import SegmentationConfig
from wsss.segmentation.model_file import build_network
from wsss.segmentation.training import SegmentationTask
from wsss.training import descent
from wsss.training.step import TrainingTask

CLASSES = 20
RUN = "voc-lite-best"
# Of the length of all gradients together, what rounding may leave.
SAME, ROUNDING = 1e-3, 1e-7


def task(stage: str, options: dict[str, Any]) -> TrainingTask:
    """The stage's task with random weights."""
    config = load_config(folder=ROOT).run(RUN).stages[stage]
    changes: dict[str, Any] = {"backbone": replace(config.backbone, weights="none")}
    changes |= {"crop_px": options["crop"], "batch_size": options["batch"]}
    config = replace(config, **changes)
    torch.manual_seed(0)
    if isinstance(config, SegmentationConfig):
        return SegmentationTask(build_network(config, CLASSES), config, torch.device("cpu"))
    assert isinstance(config, PlainSettings)
    return PlainMethod(config, CLASSES, device=torch.device("cpu"))


def form(stage: str, options: dict[str, Any], light: bool) -> Callable[[], Any]:
    """Return some timed steps in one form; they return the quickest, and its processor time."""
    setup(Device(device="cpu", threads=options["threads"]), seed=0)
    trained = task(stage, options)
    if light:
        keep_freed_memory()
        for module in trained.modules.values():
            lighten(module)
    batches = [batch(trained, step) for step in range(options["steps"])]

    def run() -> dict[str, float]:
        times = []
        for step, each in enumerate(batches):
            start, busy = time.perf_counter(), time.process_time()
            torch.manual_seed(step)  # dropout
            descent.take_step(trained, each, context_of(step, len(batches), torch.device("cpu")))
            times.append((time.perf_counter() - start, time.process_time() - busy))
        seconds, cpu_s = min(times[1:] or times)
        return {"seconds": seconds, "cpu_s": cpu_s}

    return run


def batch(trained: TrainingTask, step: int) -> dict[str, Any]:
    """Smooth pictures with squares, a function of `step`; random labels of blocks of pixels."""
    config: Any = trained._config if isinstance(trained, SegmentationTask) else trained.config  # type: ignore[attr-defined]
    made = batch_of(config, step, torch.device("cpu"))
    coarse = np.random.default_rng(step).integers(0, CLASSES + 1, (len(made["image"]), 8, 8))
    side = -(-config.crop_px // 8)
    target = torch.from_numpy(coarse).repeat_interleave(side, 1).repeat_interleave(side, 2)
    return {**made, "target": target[:, : config.crop_px, : config.crop_px]}


def difference(stage: str, options: dict[str, Any]) -> Callable[[], Any]:
    """Return how far the gradients of the forms' first step are apart, of their length.

    And how far those of the plain form are from themselves, its input rounded otherwise: random
    weights and activations with a bend blow rounding up.
    """

    def gradients(light: bool, rounding: float = 0.0) -> list[torch.Tensor]:
        setup(Device(device="cpu", threads=options["threads"]), seed=0)
        trained = task(stage, options)
        for module in trained.modules.values():
            if light:
                lighten(module)
        made = batch(trained, 0)
        made["image"] = made["image"] * (1 + rounding * torch.randn_like(made["image"]).sign())
        torch.manual_seed(0)
        descent.take_step(trained, made, context_of(0, 1, torch.device("cpu")))
        return [
            parameter.grad.double()
            for module in trained.modules.values()
            for parameter in module.parameters()
            if parameter.grad is not None
        ]

    def run() -> list[float]:
        plain = gradients(False)
        length = sum(float(a.square().sum()) for a in plain)
        found = []
        for others in (gradients(True), gradients(False, ROUNDING)):
            off = sum(float((a - b).square().sum()) for a, b in zip(plain, others, strict=True))
            found.append((off / length) ** 0.5)
        return found

    return run


def row(stage: str, options: dict[str, Any], rounds: int) -> Row:
    off, own = measure(difference, stage=stage, options=options).result
    kept: dict[bool, list[Measured]] = {False: [], True: []}
    for _ in range(rounds):
        for light, found in kept.items():
            found.append(measure(form, stage=stage, options=options, light=light))
    quickest = {
        light: min((each.result["seconds"], each.result["cpu_s"]) for each in found)
        for light, found in kept.items()
    }
    return Row(
        stage=f"training step ({stage})",
        case=f"crop {options['crop']}",
        backbone="Lite0",
        batch=options["batch"],
        images=options["batch"],
        ours=Timing(*quickest[True]),
        naive=Timing(*quickest[False]),
        same=f"gradients to {off:.0e} of their length, by rounding alone {own:.0e}",
        agrees=off < max(SAME, 2 * own),
        peak_mb=max(each.grown_mb for each in kept[True]),
        naive_peak_mb=max(each.grown_mb for each in kept[False]),
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--crop", type=int, default=256)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    add_options(parser)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    sizes = {name: getattr(options, name) for name in ("crop", "batch", "steps", "threads")}
    return finish([row(stage, sizes, options.rounds) for stage in ("cam", "segmentation")], options)


if __name__ == "__main__":
    sys.exit(main())
