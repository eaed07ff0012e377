"""The machine that a benchmark runs on: what it is, and how fast it multiplies and copies."""

from __future__ import annotations

import math
import os
import platform
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

PACKAGES = ("torch", "numpy", "scipy", "pillow", "h5py", "timm", "pydensecrf2")


@dataclass(frozen=True)
class Machine:
    """What a measurement depends on, beside the code."""

    processor: str
    cores: int
    memory_gb: float
    system: str
    gpu: str
    load: float  # processes running on average over the last minute, at the start
    versions: Mapping[str, str]

    @property
    def slug(self) -> str:
        """A file name from hardware and versions."""
        parts = [self.gpu or self.processor, f"{self.cores}-cores"]
        parts += [f"{name}-{self.versions[name]}" for name in ("python", "torch")]
        return "_".join(re.sub(r"[^A-Za-z0-9.+-]+", "-", part).strip("-") for part in parts)

    def lines(self) -> list[str]:
        """Describe the machine in a few lines."""
        names = ", ".join(f"{name} {number}" for name, number in self.versions.items())
        gpu = f", {self.gpu}" if self.gpu else ""
        return [
            f"{self.processor}, {self.cores} cores, {self.memory_gb:.0f} GB{gpu}; {self.system}",
            names,
            f"load average when it began: {self.load:.1f} (wall times need a quiet machine)",
        ]


def _processor() -> str:
    path = Path("/proc/cpuinfo")
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    pairs = (line.split(":", 1) for line in text.splitlines() if ":" in line)
    found = {key.strip(): value.strip() for key, value in pairs}
    name = found.get("model name") or platform.processor() or platform.machine()
    # Virtual machines often name the maker only; family and model say which it is.
    if "cpu family" in found:
        name += f" (family {found['cpu family']}, model {found['model']})"
    return name


@cache
def machine() -> Machine:
    """Describe this machine (once a process)."""
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else ""
    cores = len(os.sched_getaffinity(0))
    system = f"{platform.system()} {platform.release()}"
    return Machine(_processor(), cores, memory, system, gpu, os.getloadavg()[0], versions)


def synchronise(device: torch.device) -> None:
    """Wait for a GPU to finish; nothing to wait for on a CPU."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@cache
def product_rate(dtype: torch.dtype = torch.float32, device: str = "cpu") -> float:
    """Measured FLOPs a second of matrix products, the best of two sizes and several tries.

    As a product and as a dense convolution: PyTorch takes different libraries for them, and on some
    processors the one is twice as fast as the other. With the threads of this process: set them
    first. The rate is remembered.
    """
    work: list[tuple[int, Callable[[], object]]] = []
    cuda = device.startswith("cuda")
    for side in (4096, 8192) if cuda else (1024, 2048):
        a = torch.rand(side, side, device=device).to(dtype)
        work.append((2 * side**3, partial(torch.mm, a, a)))
    batch, channels, side = (16 if cuda else 1), 256, 64
    x = torch.rand(batch, channels, side, side, device=device).to(dtype)
    x = x.contiguous(memory_format=torch.channels_last)
    weight = torch.rand(channels, channels, 3, 3, device=device).to(dtype)
    weight = weight.contiguous(memory_format=torch.channels_last)
    inside = batch * (side - 2) ** 2
    work.append((2 * 9 * channels**2 * inside, partial(torch.conv2d, x, weight)))
    best = 0.0
    with torch.inference_mode():
        for flops, function in work:
            for _ in range(6):
                start = time.perf_counter()
                function()
                synchronise(torch.device(device))
                best = max(best, flops / (time.perf_counter() - start))
    return best


def _convolution_backward(
    grad_output: Sequence[int],
    image: Sequence[int],
    weight: Sequence[int],
    *arguments: Any,
    out_shape: Sequence[Any],
    **_: Any,
) -> int:
    transposed, (of_image, of_weight, *_) = arguments[4], arguments[-1]
    places = image if transposed else grad_output
    forward = 2 * math.prod(places) * math.prod(weight[1:])
    return forward * (int(of_image) + int(of_weight))


def flop_counter() -> FlopCounterMode:
    """Return PyTorch's counter of FLOPs, right for the gradients of grouped convolutions.

    Its own formula takes the weight gradient for that of a dense convolution: for a depthwise one,
    as many times too many as there are channels.
    """
    mapping = {torch.ops.aten.convolution_backward: _convolution_backward}
    return FlopCounterMode(display=False, custom_mapping=mapping)


@cache
def copy_rate(device: str = "cpu") -> float:
    """Measured bytes a second of copying memory that fits no cache; reads and writes count."""
    source = torch.rand((1024 if device.startswith("cuda") else 64) * 2**20 // 4, device=device)
    target = torch.empty_like(source)
    best = 0.0
    for _ in range(9):
        start = time.perf_counter()
        target.copy_(source)
        synchronise(torch.device(device))
        best = max(best, 2 * source.numel() * 4 / (time.perf_counter() - start))
    return best
