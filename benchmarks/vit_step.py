"""Time and GPU memory of one training step of a transformer method, as a run configures it.

    python benchmarks/vit_step.py                               # acr-vit: crop 256, batch 8
    python benchmarks/vit_step.py --run voc-mct                 # the transformer alone
    python benchmarks/vit_step.py --run voc-mct --device cpu --batch 2 --steps 3

Noise for images and random weights, which change neither; loading images is not in the time.
Without a GPU nothing is measured unless `--device cpu` asks for it.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from wsss.cam.methods.transformer_config import TransformerSettings
from wsss.cam.model_file import cam_task
from wsss.project.config import load_config
from wsss.runtime.compute import Compute, setup
from wsss.runtime.settings import replace
from wsss.training.descent import take_step
from wsss.training.step import StepContext

CLASSES = 20


def noise_batch(config: TransformerSettings, device: torch.device) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(0)
    count, side = config.batch_size, config.crop_px
    label = torch.zeros(count, CLASSES)
    for number in range(count):
        label[number, torch.randperm(CLASSES, generator=generator)[:2]] = 1
    return {
        "image": torch.rand(count, 3, side, side, generator=generator).to(device),
        "valid": torch.ones(count, 1, side, side, dtype=torch.bool, device=device),
        "label": label.to(device),
    }


def step_times(config: TransformerSettings, device: torch.device, steps: int) -> list[float]:
    """Seconds of each of `steps` steps, after two that warm up."""
    task = cam_task(config, CLASSES, device=device)
    for module in task.modules.values():
        module.train()
    batch = noise_batch(config, device)
    times = []
    for step in range(steps + 2):
        context = StepContext(
            device=device,
            epoch=0,
            step=step,
            total_steps=steps + 2,
            generator=torch.Generator().manual_seed(step),
            rng=np.random.default_rng(step),
        )
        start = time.perf_counter()
        take_step(task, batch, context)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - start)
    return times[2:]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", default="voc-vit", help="a run of config.yaml")
    parser.add_argument("--batch", type=int, help="instead of the run's")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--deterministic", action=argparse.BooleanOptionalAction, default=True)
    options = parser.parse_args()
    if options.device.startswith("cuda") and not torch.cuda.is_available():
        print("no GPU here, nothing measured; --device cpu measures on the CPU")
        return
    project = load_config(folder=Path(__file__).resolve().parent.parent)
    config: TransformerSettings = project.run(options.run).stages["cam"]
    config = replace(
        config,
        batch_size=options.batch or config.batch_size,
        **{
            key: replace(network, weights="none")
            for key, network in config
            if key in ("backbone", "vit")
        },
    )
    compute = Compute(
        device=options.device,
        threads=options.threads,
        workers=0,
        deterministic=options.deterministic,
    )
    device = setup(compute, seed=0)
    print(f"{options.run}: {config.method}, crop {config.crop_px} px, ", end="")
    print(f"batch {config.batch_size}, precision {config.precision}, ", end="")
    print(f"deterministic {options.deterministic}")
    times = step_times(config, device, options.steps)
    print(f"a step: median {np.median(times):.3f} s, {min(times):.3f} to {max(times):.3f} s")
    if device.type == "cuda":
        peak = torch.cuda.max_memory_allocated(device) / 1e9
        print(f"{torch.cuda.get_device_name(device)}: {peak:.2f} GB at most")


if __name__ == "__main__":
    main()
