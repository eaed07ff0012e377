"""Random walk: the sparse Chebyshev walk against the published dense form, side by side.

    python -m benchmarks.random_walk            # a small map: the dense walk takes a second
    python -m benchmarks.random_walk --full     # a 500x375 image: minutes and gigabytes, dense

The naive form is written the way the field's scripts do it: the N x N transition matrix, squared
eight times in float32. A float64 walk says which of the two is right. `--device cuda` adds a batch.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

import numpy as np
import torch
from scipy.ndimage import gaussian_filter

from benchmarks.harness import (
    Row,
    Timing,
    add_options,
    finish,
    interleave,
    measure,
)
from benchmarks.machine import copy_rate
from wsss.irn.affinity import FlatGrid, directions, pair_affinities
from wsss.irn.inputs import label_values
from wsss.irn.random_walk import power_coefficients, random_walk, random_walk_batch
from wsss.irn.walked import walked_scores

BACKGROUND = 0.25
LIMIT_MB = 100
AGREEMENT = 0.9999


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


def sparse_alone(height: int, width: int, classes: int) -> Callable[[], None]:
    cam, edge = inputs(height, width, classes)
    random_walk(torch.rand(1, 8, 8), torch.rand(8, 8))

    def walk() -> None:
        random_walk(cam, edge)

    return walk


def dense_alone(height: int, width: int, classes: int) -> Callable[[], list[float]]:
    """The dense walk, its result with it: it takes too long to be run twice."""
    cam, edge = inputs(height, width, classes)
    dense_walk(torch.rand(1, 8, 8), torch.rand(8, 8), torch.float32)
    return lambda: dense_walk(cam, edge, torch.float32).flatten().tolist()


def cpu_row(height: int, width: int, classes: int, *, dense: bool, target: float | None) -> Row:
    """Measure walks of an image of height x width on the CPU."""
    h, w = (height - 1) // 4 + 1, (width - 1) // 4 + 1
    cam, edge = inputs(h, w, classes)
    forms = {"ours": lambda: random_walk(cam, edge)}
    small = h * w < 3000
    if dense and small:
        forms["naive"] = lambda: dense_walk(cam, edge, torch.float32)
    times = interleave(forms, repeats=3 if dense and small else 9)
    naive_alone = measure(dense_alone, height=h, width=w, classes=classes) if dense else None
    if naive_alone is not None and not small:
        times["naive"] = Timing(naive_alone.seconds, naive_alone.cpu_s)
    truth = stepped_walk(cam, edge)
    found = random_walk(cam, edge)
    error = float((found - truth).abs().max() / truth.max())
    agreement = (labels(found, (height, width)) == labels(truth, (height, width))).mean()
    same = f"labels {100 * agreement:.4f} %, scores to {error:.0e} of float64's"
    if naive_alone is not None:
        theirs = torch.tensor(naive_alone.result).reshape(cam.shape)
        off = float((theirs - truth).abs().max() / truth.max())
        equal = (labels(theirs, (height, width)) == labels(truth, (height, width))).mean()
        same += f" (naive {100 * equal:.4f} %, {off:.0e})"
    # The least bytes a product moves: every affinity once, the maps read and written once.
    products = len(power_coefficients(256)) - 1
    moved = products * 4 * h * w * (len(directions(5)) + 2 * classes)
    peak = measure(sparse_alone, height=h, width=w, classes=classes).grown_mb
    return Row(
        stage="random walk",
        case=f"{width}x{height}, {classes} classes, 256 steps",
        ours=times["ours"],
        naive=times.get("naive"),
        same=same,
        agrees=bool(agreement >= AGREEMENT) and peak < LIMIT_MB,
        peak_mb=peak,
        naive_peak_mb=None if naive_alone is None else naive_alone.grown_mb,
        floor_s=moved / copy_rate(),
        floor=f"bytes of {products} products",
        target=target,
    )


def gpu_row(height: int, width: int, classes: int, batch: int, device: str) -> Row:
    """Measure a batch of walks on a GPU; equality is with the CPU."""
    h, w = (height - 1) // 4 + 1, (width - 1) // 4 + 1
    cam, edge = inputs(h, w, classes)
    cams, edges = [cam.to(device)] * batch, [edge.to(device)] * batch
    times = interleave({"ours": lambda: random_walk_batch(cams, edges)}, device=device)
    peak = torch.cuda.max_memory_allocated() / 1e6
    off = float(
        (random_walk_batch(cams[:1], edges[:1])[0].cpu() - random_walk(cam, edge)).abs().max()
    )
    return Row(
        stage="random walk, GPU",
        case=f"{width}x{height}, {classes} classes, 256 steps",
        ours=times["ours"],
        same=f"to {off:.0e} of the CPU's",
        agrees=off < 1e-5 * float(cam.max()),
        batch=batch,
        images=batch,
        peak_mb=peak,
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--full", action="store_true", help="a 500x375 image, dense too (minutes)")
    parser.add_argument("--no-dense", action="store_true", help="leave the dense walk out")
    parser.add_argument("--classes", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch", type=int, default=16, help="images at once on a GPU")
    add_options(parser)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    height, width = (375, 500) if options.full else (160, 160)
    target = 3000 if options.full else None
    rows = [cpu_row(height, width, options.classes, dense=not options.no_dense, target=target)]
    if options.device.startswith("cuda"):
        rows.append(gpu_row(height, width, options.classes, options.batch, options.device))
    return finish(rows, options)


if __name__ == "__main__":
    sys.exit(main())
