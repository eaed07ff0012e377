"""Random walk: the sparse Chebyshev walk against the published dense form, side by side.

    python benchmarks/random_walk.py            # small map: the dense walk takes a second
    python benchmarks/random_walk.py --full     # a 500x375 image: minutes and gigabytes, dense

The naive form is written the way the field's scripts do it: the N x N transition matrix, squared
eight times in float32. A float64 walk says which of the two is right. `--device cuda` adds a batch.
"""

from __future__ import annotations

import argparse
import platform
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch
from scipy.ndimage import gaussian_filter

from wsss.irn.affinity import FlatGrid, directions, pair_affinities
from wsss.irn.inputs import label_values
from wsss.irn.random_walk import power_coefficients, random_walk, random_walk_batch
from wsss.irn.walked import walked_scores

BACKGROUND = 0.25


def inputs(height: int, width: int, classes: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Smooth CAMs, and edges around smooth regions, like IRNet's."""
    rng = np.random.default_rng(0)
    cam = gaussian_filter(rng.random((classes, height, width)), (0, 5, 5))
    cam = (cam - cam.min((1, 2), keepdims=True)) / np.ptp(cam, (1, 2), keepdims=True)
    regions = gaussian_filter(rng.random((height, width)), 7)
    level = (regions - regions.min()) / np.ptp(regions)
    edge = np.exp(-(((level * 6) % 1.0 - 0.5) ** 2) / 0.01) * 0.9 + 0.02
    return torch.from_numpy(cam.astype(np.float32)), torch.from_numpy(edge.astype(np.float32))


def dense_walk(cam: torch.Tensor, edge: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Square the dense transition matrix eight times."""
    height, width = edge.shape
    matrix = torch.eye(height * width, dtype=dtype)
    places = torch.arange(height * width).reshape(height, width)
    exact = edge.to(dtype)
    for direction in directions(5):
        dy, dx = direction.dy, direction.dx
        rows = slice(0, max(0, height - dy))
        columns = slice(max(0, -dx), width - max(0, dx))

        def shifted(
            maps: torch.Tensor, y: int, x: int, rows: slice = rows, columns: slice = columns
        ) -> torch.Tensor:
            return maps[rows.start + y : rows.stop + y, columns.start + x : columns.stop + x]

        strongest = torch.stack([shifted(exact, y, x) for y, x in direction.path]).amax(0)
        here, there = shifted(places, 0, 0).flatten(), shifted(places, dy, dx).flatten()
        matrix[here, there] = matrix[there, here] = ((1 - strongest) ** 10).flatten()
    matrix /= matrix.sum(0, keepdim=True)
    scores = (cam.to(dtype) * (1 - exact)).flatten(1)
    for _ in range(8):
        matrix = matrix @ matrix
    return (scores @ matrix).reshape(cam.shape)


def stepped_walk(cam: torch.Tensor, edge: torch.Tensor) -> torch.Tensor:
    """The truth where a float64 matrix would not fit: 256 sparse steps in float64."""
    grid = FlatGrid(*edge.shape, 4)
    pairs = pair_affinities(edge.double(), grid, 5, 10.0)
    scores = grid.flatten(cam.double() * (1 - edge.double()), 0.0)
    sums = torch.ones_like(scores[0])
    for pair in pairs:
        sums[: -pair.step] += pair.affinity
        sums[pair.step :] += pair.affinity
    for _ in range(256):
        moved = scores.clone()
        for pair in pairs:
            moved[:, : -pair.step] += pair.affinity * scores[:, pair.step :]
            moved[:, pair.step :] += pair.affinity * scores[:, : -pair.step]
        scores = moved / sums
    return grid.unflatten(scores)


def labels(walked: torch.Tensor, size: tuple[int, int]) -> np.ndarray:
    # The scores in float64 for the truth, so that its own rounding decides no pixel.
    if walked.dtype == torch.float32:
        scores = walked_scores(walked.numpy(), size)[1]
        return label_values(scores, BACKGROUND, np.arange(len(scores)))
    big = torch.nn.functional.interpolate(walked[None], scale_factor=4.0, mode="bilinear")[0]
    big = big[:, : size[0], : size[1]].numpy()
    return np.where((big / big.max()).max(0) > BACKGROUND, big.argmax(0) + 1, 0)


def seconds(function: object, repeats: int) -> float:
    """Median time of a call."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()  # type: ignore[operator]
        times.append(time.perf_counter() - start)
    return float(np.median(times))


def status_mb(key: str) -> float:
    """One of the kernel's counts for this process: VmRSS (now) or VmHWM (highest ever)."""
    text = Path("/proc/self/status").read_text(encoding="utf-8")
    line = next(line for line in text.splitlines() if line.startswith(key + ":"))
    return int(line.split()[1]) / 1024


def peak_memory_mb(height: int, width: int, classes: int) -> float:
    """Extra resident memory of one walk, at most, in a process of its own."""
    code = (
        "import torch\n"
        "from benchmarks.random_walk import status_mb\n"
        "from wsss.irn.random_walk import random_walk\n"
        "torch.set_num_threads(1)\n"
        "random_walk(torch.rand(1, 8, 8), torch.rand(8, 8))\n"
        "before = status_mb('VmRSS')\n"
        f"random_walk(torch.rand({classes}, {height}, {width}), torch.rand({height}, {width}))\n"
        "print(status_mb('VmHWM') - before)"
    )
    run = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[1],
    )
    return float(run.stdout)


def copy_rate_gb_s() -> float:
    """Measured rate of copying memory that fits no cache, read and written bytes counted."""
    source = torch.rand(64 * 2**20 // 4)
    target = torch.empty_like(source)
    return 2 * source.numel() * 4 / seconds(lambda: target.copy_(source), 7) / 1e9


def report_gpu(cam: torch.Tensor, edge: torch.Tensor, batch: int, device: str) -> None:
    cams, edges = [cam.to(device)] * batch, [edge.to(device)] * batch

    def walk() -> None:
        random_walk_batch(cams, edges)
        torch.cuda.synchronize()

    walk()
    each = seconds(walk, 5) / batch
    peak = torch.cuda.max_memory_allocated() / 2**20
    name = torch.cuda.get_device_name()
    print(f"{name}, batch {batch}: {1e3 * each:.2f} ms an image, peak {peak:.0f} MiB")
    same = random_walk_batch(cams[:1], edges[:1])[0].cpu() - random_walk(cam, edge)
    print(f"  largest difference to the CPU: {float(same.abs().max()):.1e}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--full", action="store_true", help="a 500x375 image, dense too (minutes)")
    parser.add_argument("--no-dense", action="store_true", help="leave the dense walk out")
    parser.add_argument("--classes", type=int, default=2)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch", type=int, default=16, help="images at once on a GPU")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    height, width = (375, 500) if options.full else (160, 160)
    h, w = (height - 1) // 4 + 1, (width - 1) // 4 + 1
    cam, edge = inputs(h, w, options.classes)
    cpu = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
        cpu = next((line.split(": ")[1] for line in text.splitlines() if "model name" in line), cpu)
    print(f"{cpu}, {options.threads} thread(s), PyTorch {torch.__version__}, float32")
    print(f"image {width}x{height}, map {w}x{h}, {options.classes} classes, 256 steps")

    random_walk(cam, edge)
    fast = seconds(lambda: random_walk(cam, edge), 9)
    start = time.process_time()
    random_walk(cam, edge)
    busy = time.process_time() - start
    found = random_walk(cam, edge)
    truth = stepped_walk(cam, edge)
    error = float((found - truth).abs().max() / truth.max())
    agreement = (labels(found, (height, width)) == labels(truth, (height, width))).mean()
    print(f"sparse: {1e3 * fast:.1f} ms ({1e3 * busy:.1f} ms of processor time)", end="")
    print(f", {1 / fast:.1f} images/s", end="")
    print(f", peak {peak_memory_mb(h, w, options.classes):.0f} MB more at most")
    print(f"  against float64: {error:.1e} of the maximum, labels agree on {100 * agreement:.4f} %")
    # The least bytes a product moves: every affinity once, the maps read and written once.
    products = len(power_coefficients(256)) - 1
    moved = products * 4 * h * w * (len(directions(5)) + 2 * options.classes)
    floor = moved / copy_rate_gb_s() / 1e9
    print(f"  {products} products; floor at the copy rate {1e3 * floor:.1f} ms", end="")
    print(f", share of the floor {100 * floor / fast:.0f} %")

    if not options.no_dense:
        before = status_mb("VmRSS")
        start = time.perf_counter()
        dense = dense_walk(cam, edge, torch.float32)
        slow = time.perf_counter() - start
        grown = status_mb("VmHWM") - before
        off = float((dense - truth).abs().max() / truth.max())
        same = (labels(dense, (height, width)) == labels(truth, (height, width))).mean()
        print(f"dense:  {slow:.2f} s, {1 / slow:.3f} images/s, {grown:.0f} MB more")
        print(f"  against float64: {off:.1e} of the maximum, labels agree on {100 * same:.4f} %")
        print(f"ratio {slow / fast:.0f}")
    if options.device.startswith("cuda"):
        report_gpu(cam, edge, options.batch, options.device)


if __name__ == "__main__":
    main()
