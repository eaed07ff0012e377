"""Loading and augmentation: the published form in the main process against ours.

    python -m benchmarks.loading             # 24 photographs of 500x375, crop 256
    python -m benchmarks.loading --full      # 200, and the waiting of a real training

The naive form is written the way the field's scripts do it: PIL decodes at full size, resizes the
long side bicubically, mirrors; NumPy turns the whole picture into normalised float32 and cuts the
crop into a container. Ours keeps bytes until the crop. Both take the same draws; their pixels are
compared (PIL and torchvision round their bicubic weights differently, by a grey level).

`--full` also trains a plain classifier for a few steps and reads `data_wait_share` from its
metrics: the part of the time in which the device had no batch.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from benchmarks.harness import Row, Timing, add_options, finish, interleave, measure
from benchmarks.synthetic import write_data_set
from wsss.cam.methods.plain_config import PlainSettings
from wsss.cam.training import ClassificationImages, train_cam
from wsss.data.index import Index, read_index
from wsss.data.loader import random_generator
from wsss.data.transforms import normalise
from wsss.models.backbones import EFFICIENTNET_LITE
from wsss.runtime.compute import Compute

SIZE = (375, 500)
WAIT_LIMIT = 0.05
GREY_LEVELS = 1.5


def naive_sample(path: Path, config: PlainSettings, rng: np.random.Generator) -> np.ndarray:
    """(3, S, S) float32, normalised, zero where there is no picture."""
    image = Image.open(path).convert("RGB")
    length = int(rng.integers(config.long_side_min_px, config.long_side_max_px + 1))
    factor = length / max(image.size)
    size = (max(1, round(image.width * factor)), max(1, round(image.height * factor)))
    image = image.resize(size, Image.Resampling.BICUBIC)
    if rng.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    pixels = np.asarray(image)
    normalised = np.empty_like(pixels, np.float32)
    for channel in range(3):
        mean, std = EFFICIENTNET_LITE.mean[channel], EFFICIENTNET_LITE.std[channel]
        normalised[..., channel] = (pixels[..., channel] / 255.0 - mean) / std
    side = config.crop_px
    container = np.zeros((side, side, 3), np.float32)
    places = []
    for extent in normalised.shape[:2]:
        if extent >= side:
            places.append((int(rng.integers(0, extent - side + 1)), 0, side))
        else:
            places.append((0, int(rng.integers(0, side - extent + 1)), extent))
    (top, to_top, rows), (left, to_left, columns) = places
    cut = normalised[top : top + rows, left : left + columns]
    container[to_top : to_top + rows, to_left : to_left + columns] = cut
    return np.ascontiguousarray(container.transpose(2, 0, 1))


def rng_of(name: str) -> np.random.Generator:
    return random_generator(0, 0, name)


def naive_all(index: Index, root: Path, config: PlainSettings) -> list[np.ndarray]:
    return [naive_sample(root / r.path, config, rng_of(r.name)) for r in index.records]


def ours_all(images: ClassificationImages) -> list[dict[str, object]]:
    return [images.load(i, rng_of(name)) for i, name in enumerate(images.names)]


def grey_levels_off(index: Index, root: Path, images: ClassificationImages) -> float:
    """Mean difference of both forms' pixels, in grey levels."""
    config, worst = images._config, 0.0
    for position, record in enumerate(index.records[:8]):
        theirs = naive_sample(root / record.path, config, rng_of(record.name))
        sample = images.load(position, rng_of(record.name))
        ours = normalise(sample["image"][None], EFFICIENTNET_LITE, sample["valid"][None])[0]
        worst = max(worst, float(np.abs(ours.numpy() - theirs).mean()) * 128)
    return worst


def training(folder: str, epochs: int, workers: int, device: str) -> Callable[[], float]:
    """Return a short training; it returns the largest share of its time without a batch."""
    base = Path(folder)

    def run() -> float:
        train_cam(
            config=PlainSettings(epochs=epochs, batch_size=8),
            index=base / "index.csv",
            root=base / "data",
            output=base / "model.safetensors",
            work_dir=base / "work",
            compute=Compute(device=device, threads=torch.get_num_threads(), workers=workers),
        )
        lines = (base / "work" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        # The first line has the start of the workers in it.
        shares = [json.loads(line)["data_wait_share"] for line in lines]
        return float(np.mean(shares[1:] or shares))

    return run


def loading_row(index: Index, root: Path) -> Row:
    config = PlainSettings()
    images = ClassificationImages(index, root, config)
    torch.set_num_threads(1)  # as in a worker; images/s is thus of one core
    times = interleave(
        {"naive": lambda: naive_all(index, root, config), "ours": lambda: ours_all(images)},
        repeats=3,
    )
    off = grey_levels_off(index, root, images)
    return Row(
        stage="loading, augmentation",
        case=f"JPEG {SIZE[1]}x{SIZE[0]}, crop {config.crop_px}, one core",
        ours=times["ours"],
        naive=times["naive"],
        images=len(index.records),
        same=f"same crop, pixels {off:.2f} grey levels apart on average",
        agrees=off < GREY_LEVELS,
        threads=1,
    )


def waiting_row(folder: Path, count: int, options: argparse.Namespace) -> Row:
    run = measure(
        training, folder=str(folder), epochs=2, workers=options.workers, device=options.device
    )
    share = run.result
    return Row(
        stage="waiting for batches",
        case=f"plain classifier, Lite0, crop {PlainSettings().crop_px}",
        backbone="Lite0",
        batch=8,
        ours=Timing(run.seconds, run.cpu_s),
        images=2 * (count // 8) * 8,
        peak_mb=run.grown_mb,
        same=f"device waits {share:.1%} of the time (to stay under {WAIT_LIMIT:.0%})",
        agrees=share < WAIT_LIMIT,
        note=f"{options.workers} workers",
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--full", action="store_true", help="200 pictures, and a short training")
    parser.add_argument("--images", type=int, help="that many pictures")
    parser.add_argument("--device", default="cpu", help="of the short training")
    parser.add_argument("--workers", type=int, default=2, help="of the short training")
    add_options(parser)
    options = parser.parse_args()
    count = options.images or (200 if options.full else 24)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_data_set(folder, count=count, size=SIZE)
        index = read_index(folder / "index.csv")
        rows = [loading_row(index, folder / "data")]
        if options.full:
            torch.set_num_threads(options.threads)
            rows.append(waiting_row(folder, count, options))
    return finish(rows, options)


if __name__ == "__main__":
    sys.exit(main())
