"""Scoring CAMs at 30 background scores: one pass against one reading and scoring a score.

    python -m benchmarks.threshold_sweep             # 6 images of 500x375, 2 classes each
    python -m benchmarks.threshold_sweep --full      # 50 images

The naive form is written the way the field's scripts do it: CAMs of full size as a pickled dict in
an .npy file an image; for each background score the files are read, a background plane is put
before the maps, argmax labels them and their pixels are counted. Ours reads maps at stride 4 from
the map store and counts once for all scores. Both get the same values: the .npy files hold what
the store's maps become at full size. The confusion matrices must be equal to the pixel.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from benchmarks.harness import Row, add_options, copy_rate, finish, interleave, measure
from benchmarks.synthetic import CLASSES, write_data_set
from wsss.data.index import read_masks
from wsss.data.map_store import MapStore, upsample
from wsss.evaluation.scoring import _count_maps, _Truth
from wsss.evaluation.sweep import SweepCounts, as_thresholds

SIZE = (375, 500)
SCORES = [round(0.02 + 0.03 * number, 2) for number in range(30)]


def write_inputs(folder: Path, count: int) -> None:
    """Write the data set and, for the naive form, its CAMs at full size."""
    write_data_set(folder, count=count, size=SIZE)
    (folder / "npy").mkdir()
    with MapStore(folder / "cams.h5") as store:
        for name in store.names:
            stored = store.read(name)
            big = upsample(stored.maps, stored.size, store.upsampling)
            keys = np.pad(stored.class_indices + 1, (1, 0))
            # A dict in an array of objects: what np.save makes of it is a pickle.
            np.save(folder / f"npy/{name}.npy", np.array({"keys": keys, "high_res": big}))


def naive(folder: Path) -> np.ndarray:
    """(scores, labels, labels) counts, a reading of all files for each background score."""
    masks = read_masks(folder / "masks.csv")
    n = len(CLASSES) + 1
    result = np.zeros((len(SCORES), n, n), np.int64)
    for position, score in enumerate(SCORES):
        for name, mask in masks.items():
            saved = np.load(folder / f"npy/{name}.npy", allow_pickle=True).item()
            maps = np.pad(
                saved["high_res"],
                ((1, 0), (0, 0), (0, 0)),
                mode="constant",
                constant_values=np.float32(score),
            )
            predicted = saved["keys"][np.argmax(maps, axis=0)]
            truth = np.asarray(Image.open(folder / "data" / mask)).astype(np.int64)
            valid = truth < n
            counts = np.bincount(n * truth[valid] + predicted[valid], minlength=n * n)
            result[position] += counts.reshape(n, n)
    return result


def ours(folder: Path) -> SweepCounts:
    masks = read_masks(folder / "masks.csv")
    truth = _Truth(folder / "data", masks, len(CLASSES), dict.fromkeys(masks, SIZE))
    return _count_maps(
        sorted(masks),
        maps=folder / "cams.h5",
        truth=truth,
        thresholds=as_thresholds(SCORES),
        untagged=frozenset(),
    )


def alone(form: str, folder: str) -> Callable[[], None]:
    function = {"naive": naive, "ours": ours}[form]

    def run() -> None:
        function(Path(folder))

    return run


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--full", action="store_true", help="50 images")
    parser.add_argument("--images", type=int, help="that many")
    add_options(parser)
    options = parser.parse_args()
    torch.set_num_threads(1)  # both forms: another core is for another part of the images
    count = options.images or (50 if options.full else 6)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_inputs(folder, count)
        times = interleave(
            {"naive": partial(naive, folder), "ours": partial(ours, folder)}, repeats=3
        )
        expected, found = naive(folder), ours(folder)
        equal = all(np.array_equal(found.confusion(i), expected[i]) for i in range(len(SCORES)))
        peaks = {form: measure(alone, form=form, folder=name) for form in ("naive", "ours")}
        # Bytes that must move: the label, and two maps of full size written and read once.
        moved = count * SIZE[0] * SIZE[1] * (1 + 2 * 4 * 2)
    row = Row(
        stage="threshold sweep",
        case=f"{count} images {SIZE[1]}x{SIZE[0]}, 2 classes, {len(SCORES)} scores",
        ours=times["ours"],
        naive=times["naive"],
        same="confusion matrices equal to the pixel" if equal else "confusion matrices differ",
        agrees=equal,
        images=count,
        peak_mb=peaks["ours"].grown_mb,
        naive_peak_mb=peaks["naive"].grown_mb,
        floor_s=moved / copy_rate(),
        floor="bytes of labels and maps",
        target=40,
    )
    return finish([row], options)


if __name__ == "__main__":
    sys.exit(main())
