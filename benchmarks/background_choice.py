"""Background scores chosen without masks, beside the one that masks choose: their regret.

    python -m benchmarks.background_choice results/demo results/voc-lite-cam
    python -m benchmarks.background_choice results/voc-lite --choose '2007_*'

Each argument is a run's folder that has maps (`cams.h5`, `walked.h5`, as far as they are there)
and masks (`masks.csv`, of the run whose index it shares). A score is chosen from the maps of its
training pictures, with `--choose` of those alone whose names match, and is judged by the mean IoU
over the pictures with masks, with `--choose` over the others. The regret is the best mean IoU over
all scores, which the masks choose, less that at the chosen one, in points.
"""

from __future__ import annotations

import argparse
import fnmatch
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from benchmarks.machine import machine
from benchmarks.map_agreement import crf_agreement, scaled_crf
from wsss.data.crf_config import LabelCrfConfig
from wsss.data.images import read_image, read_label
from wsss.data.index import ImageRecord, read_index, read_masks
from wsss.evaluation.confusion import scores_from_confusion
from wsss.evaluation.sweep import SweepCounts, as_thresholds
from wsss.evaluation.tables import text_table
from wsss.maps import background_choice as choice
from wsss.maps.map_store import MapStore, upsample

GRID = tuple(round(0.01 * i, 6) for i in range(100))
# The CRF takes long: fewer scores, fewer pictures, reduced to the maps' own size.
CRF_SCORES = tuple(round(0.05 * i, 2) for i in range(1, 20))
CRF_PICTURES = 48


@dataclass(frozen=True)
class Maps:
    """A store, and the pictures that choose and judge."""

    store: MapStore
    root: Path
    masks: Mapping[str, str]
    choosing: Sequence[ImageRecord]
    judging: Sequence[ImageRecord]

    def mean_ious(self) -> np.ndarray:
        """Return the mean IoU in percent at every score of `GRID`."""
        counts = SweepCounts(len(self.store.classes), as_thresholds(GRID))
        for record in self.judging:
            stored = self.store.read(record.name)
            maps = upsample(stored.maps, stored.size, self.store.upsampling)
            counts.add(read_label(self.root / self.masks[record.name]), stored.class_indices, maps)
        return np.array(
            [100 * scores_from_confusion(counts.confusion(i)).mean_iou for i in range(len(GRID))]
        )

    def counts(self) -> np.ndarray:
        """Return all values of the maps by band of the scores."""
        found = (self.store.read(record.name).maps.max(axis=0) for record in self.choosing)
        return np.sum([choice.band_counts(values, choice.SCORES) for values in found], axis=0)

    def edge_score(self) -> float:
        """Return the mean of the values where they change."""
        return choice.edge_score(self.store.read(record.name).maps for record in self.choosing)

    def crf_score(self) -> float:
        """Return the score whose labels agree best with what the CRF makes of them."""
        step = max(1, len(self.choosing) // CRF_PICTURES)
        total = np.zeros(len(CRF_SCORES))
        for record in self.choosing[::step][:CRF_PICTURES]:
            stored = self.store.read(record.name)
            whole = Image.fromarray(read_image(self.root / record.path))
            height, width = stored.maps.shape[1:]
            picture = np.array(whole.resize((width, height), Image.Resampling.BOX))
            total += crf_agreement(
                picture, stored.maps, CRF_SCORES, scaled_crf(LabelCrfConfig(), 4)
            )
        return CRF_SCORES[int(total.argmax())]


def candidates(maps: Maps) -> dict[str, Callable[[], float]]:
    """Return what each candidate is called and how it chooses."""
    counts = maps.counts()
    scores = choice.SCORES
    return {
        "logit 0 (the lowest score)": lambda: choice.decision_boundary(scores),
        "(1 - max)^1": lambda: choice.power_score(scores, 1),
        "(1 - max)^2": lambda: choice.power_score(scores, 2),
        "(1 - max)^4": lambda: choice.power_score(scores, 4),
        "Otsu": lambda: choice.otsu(counts, scores),
        "two normals (minimum error)": lambda: choice.minimum_error(counts, scores),
        "calibrated area": lambda: choice.calibrated_area(counts, scores),
        "mean": lambda: choice.mean_value(counts, scores),
        "quadratic mean": lambda: choice.quadratic_mean(counts, scores),
        "40 % of the pixels": lambda: choice.object_area(counts, scores),
        "mean at the edges": maps.edge_score,
        "agreement with its CRF": maps.crf_score,
    }


def compare(folder: Path, store_name: str, choose: str | None, *, crf: bool) -> list[list[str]]:
    """Return a line for each candidate on one store of a run."""
    owner, root = _data(folder)
    index, masks = read_index(owner / "index.csv"), read_masks(owner / "masks.csv")
    training = index.training_set().records
    choosing = [r for r in training if choose is None or fnmatch.fnmatch(r.name, choose)]
    kept = {record.name for record in choosing} if choose else set()
    judging = [r for r in training if r.name in masks and r.name not in kept]
    with MapStore(folder / store_name) as store:
        maps = Maps(store, root, masks, choosing, judging)
        ious = maps.mean_ious()
        best = int(ious.argmax())
        lines = []
        for name, chosen in candidates(maps).items():
            if name.endswith("CRF") and not crf:
                continue
            start = time.monotonic()
            score = chosen()
            at = float(ious[int(np.argmin(np.abs(np.array(GRID) - score)))])
            seconds = f"{time.monotonic() - start:.1f}"
            cells = [f"{score:g}", f"{at:.2f}", f"{ious[best] - at:.2f}", seconds]
            lines.append([f"{folder.name}/{store_name}", name, *cells])
    best_cells = [f"{GRID[best]:g}", f"{ious[best]:.2f}", "0.00", ""]
    return [*lines, [f"{folder.name}/{store_name}", "best, by masks", *best_cells]]


def _data(folder: Path) -> tuple[Path, Path]:
    """Return the folder with a run's index and masks, and its data root."""
    from wsss.project.config import load_config

    config = load_config()
    return folder.parent / config.index_owner(folder.name), config.existing_root(folder.name)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="results/<run>")
    parser.add_argument("--choose", metavar="PATTERN", help="names of the pictures that choose")
    parser.add_argument("--no-crf", action="store_true", help="leave out what takes a minute")
    options = parser.parse_args()
    torch.set_num_threads(1)
    lines = [["maps", "candidate", "score", "mIoU", "regret", "s"]]
    for folder in options.runs:
        for store in ("cams.h5", "walked.h5"):
            if (folder / store).is_file():
                lines += compare(folder, store, options.choose, crf=not options.no_crf)
    if len(lines) == 1:
        print("none of these runs has maps", file=sys.stderr)
        return 1
    print("\n".join(machine().lines()))
    print(text_table(lines, left=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
