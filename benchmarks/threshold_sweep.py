"""Scoring CAMs at 30 background scores: one pass against one reading and scoring a score.

    python -m benchmarks.threshold_sweep             # 4 images of 500x375, 2 classes each
    python -m benchmarks.threshold_sweep --full      # 50 images

Two naive forms are measured, since the field has two. Both keep CAMs of full size as a pickled dict
in an .npy file an image, and read all files again for each background score. SEAM's evaluation
(CVPR 2020, and what descends from it) spreads the maps over a plane for every class of the data set
and sums masks class by class; IRN's (CVPR 2019) puts a plane before the tagged classes' maps and
counts pairs of labels. Ours reads maps at stride 4 from the map store and counts once for all
scores.

All get the same values: the .npy files hold what the store's maps become at full size. The counts
must be equal to the pixel.
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

from benchmarks.harness import Row, add_options, finish, interleave, measure
from benchmarks.machine import copy_rate
from benchmarks.synthetic import CLASSES, write_data_set
from wsss.data.index import read_masks
from wsss.evaluation.scoring import _count_maps, _Truth
from wsss.evaluation.sweep import SweepCounts, as_thresholds
from wsss.maps.map_store import MapStore, upsample

SIZE = (375, 500)
SCORES = [round(0.02 + 0.03 * number, 2) for number in range(30)]


def write_inputs(folder: Path, count: int) -> None:
    """Write the data set and, for the naive form, its CAMs at full size."""
    write_data_set(folder, count=count, size=SIZE)
    for form in ("irn", "seam"):
        (folder / form).mkdir()
    with MapStore(folder / "cams.h5") as store:
        for name in store.names:
            stored = store.read(name)
            big = upsample(stored.maps, stored.size, store.upsampling)
            keys = np.pad(stored.class_indices + 1, (1, 0))
            # Dicts in arrays of objects: what np.save makes of them is a pickle.
            np.save(folder / f"irn/{name}.npy", np.array({"keys": keys, "high_res": big}))
            planes = dict(zip(stored.class_indices.tolist(), big, strict=True))
            np.save(folder / f"seam/{name}.npy", np.array(planes))


def read_truth(folder: Path, mask: str) -> np.ndarray:
    return np.array(Image.open(folder / "data" / mask))


def seam(folder: Path) -> np.ndarray:
    """(scores, 3, labels) counts: predicted, in the truth, both."""
    masks = read_masks(folder / "masks.csv")
    n = len(CLASSES) + 1
    result = np.zeros((len(SCORES), 3, n), np.int64)
    for position, score in enumerate(SCORES):
        for name, mask in masks.items():
            saved = np.load(folder / f"seam/{name}.npy", allow_pickle=True).item()
            planes = np.zeros((n, *next(iter(saved.values())).shape), np.float32)
            for key, values in saved.items():
                planes[key + 1] = values
            planes[0] = score
            predicted = np.argmax(planes, axis=0).astype(np.uint8)
            truth = read_truth(folder, mask)
            known = truth < 255
            right = (predicted == truth) * known
            for label in range(n):
                result[position, 0, label] += np.sum((predicted == label) * known)
                result[position, 1, label] += np.sum((truth == label) * known)
                result[position, 2, label] += np.sum((truth == label) * right)
    return result


def irn(folder: Path) -> np.ndarray:
    """(scores, labels, labels) counts, a reading of all files for each background score."""
    masks = read_masks(folder / "masks.csv")
    n = len(CLASSES) + 1
    result = np.zeros((len(SCORES), n, n), np.int64)
    for position, score in enumerate(SCORES):
        for name, mask in masks.items():
            saved = np.load(folder / f"irn/{name}.npy", allow_pickle=True).item()
            maps = np.pad(
                saved["high_res"],
                ((1, 0), (0, 0), (0, 0)),
                mode="constant",
                constant_values=np.float32(score),
            )
            predicted = saved["keys"][np.argmax(maps, axis=0)]
            truth = read_truth(folder, mask).astype(np.int64)
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
    function = {"irn": irn, "seam": seam, "ours": ours}[form]

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
    count = options.images or (50 if options.full else 4)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_inputs(folder, count)
        forms = {"seam": seam, "irn": irn, "ours": ours}
        times = interleave({form: partial(f, folder) for form, f in forms.items()}, repeats=2)
        found, pairs, sums = ours(folder), irn(folder), seam(folder)
        equal = {"irn": True, "seam": True}
        for position in range(len(SCORES)):
            ours_here = found.confusion(position)
            parts = np.stack([ours_here.sum(0), ours_here.sum(1), np.diagonal(ours_here)])
            equal["irn"] &= np.array_equal(ours_here, pairs[position])
            equal["seam"] &= np.array_equal(parts, sums[position])
        peaks = {form: measure(alone, form=form, folder=name).grown_mb for form in forms}
    # Bytes that must move: the label, and two maps of full size written and read once.
    moved = count * SIZE[0] * SIZE[1] * (1 + 2 * 4 * 2)
    rows = [
        Row(
            stage="threshold sweep",
            case=f"{count} images {SIZE[1]}x{SIZE[0]}, 2 classes, {len(SCORES)} scores",
            ours=times["ours"],
            naive=times[form],
            same="counts equal to the pixel" if equal[form] else "counts differ",
            agrees=equal[form],
            images=count,
            peak_mb=peaks["ours"],
            naive_peak_mb=peaks[form],
            floor_s=moved / copy_rate(),
            floor="bytes of labels and maps",
            target=40,
            note=f"against {form.upper()}'s form",
        )
        for form in ("seam", "irn")
    ]
    return finish(rows, options)


if __name__ == "__main__":
    sys.exit(main())
