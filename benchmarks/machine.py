"""The machine that a benchmark runs on: what it is, and how fast it multiplies and copies."""

from __future__ import annotations

import os
import platform
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

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

    With the threads of this process: set them first. The rate is remembered.
    """
    best = 0.0
    for side in (4096, 8192) if device.startswith("cuda") else (1024, 2048):
        a = torch.rand(side, side, device=device).to(dtype)
        for _ in range(6):
            start = time.perf_counter()
            a @ a
            synchronise(torch.device(device))
            best = max(best, 2 * side**3 / (time.perf_counter() - start))
    return best


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
