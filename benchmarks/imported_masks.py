"""What masks without classes make of CAMs: `cam.method: imported`, with masks as good as can be.

    python -m benchmarks.imported_masks --cams results/voc-lite/cams.h5 --root data/VOC2012
    python -m benchmarks.imported_masks --cams ... --root ... --images 50

The masks are the connected regions of the true masks, background's too, in random order and without
their classes: what a perfect segmenter would bring. Beside all of them: only those of objects; a
random half, so that some objects have none; and all, cut in two along their longer side, as
segmenters part what belongs together. The true label maps with their classes say what keeping maps
at a quarter of the size costs. It says how much good masks can add to given CAMs, not what one
segmenter's would.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from pycocotools import mask as coco_mask
from scipy import ndimage

from benchmarks.harness import Row, Timing, add_options, finish, timed
from benchmarks.voc_seeds import add_seed_options, map_mious, write_seeds
from wsss.cam.config import ExportConfig
from wsss.cam.export import export_cams
from wsss.cam.methods.registry import METHODS
from wsss.data.images import IGNORE, read_label, write_label
from wsss.data.index import Index, read_masks
from wsss.evaluation.config import EvaluationConfig
from wsss.files import write_json
from wsss.runtime.compute import Compute
from wsss.runtime.settings import to_dict

Mask = np.ndarray


def regions(label: np.ndarray, rng: np.random.Generator) -> list[tuple[Mask, bool]]:
    """The connected regions of a label map in random order; whether each is of an object."""
    found = []
    for value in np.unique(label[label != IGNORE]):
        parts, count = ndimage.label(label == value)
        found += [(parts == number, bool(value)) for number in range(1, count + 1)]
    return [found[position] for position in rng.permutation(len(found))]


def halves(mask: Mask) -> list[Mask]:
    """A mask, cut at the middle of the longer side of its box."""
    rows, columns = np.nonzero(mask)
    along = rows if np.ptp(rows) >= np.ptp(columns) else columns
    first = np.zeros_like(mask)
    chosen = along <= (along.min() + along.max()) // 2
    first[rows[chosen], columns[chosen]] = True
    return [part for part in (first, mask & ~first) if part.any()]


CASES: dict[str, Callable[[list[tuple[Mask, bool]], np.random.Generator], list[Mask]]] = {
    "all regions": lambda found, rng: [mask for mask, _ in found],
    "objects' regions": lambda found, rng: [mask for mask, is_object in found if is_object],
    "a half of the regions": lambda found, rng: [m for m, _ in found if rng.random() < 0.5],
    "regions cut in two": lambda found, rng: [part for mask, _ in found for part in halves(mask)],
}


def write_case(folder: Path, case: str, index: Index, masks: dict[str, str], root: Path) -> None:
    """Write NAME.json of every image."""
    folder.mkdir()
    for number, record in enumerate(index.records):
        rng = np.random.default_rng([number, 0])
        found = CASES[case](regions(read_label(root / masks[record.name]), rng), rng)
        coded = [coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8)) for mask in found]
        entries = [{"segmentation": {**one, "counts": one["counts"].decode()}} for one in coded]
        (folder / f"{record.name}.json").write_text(json.dumps(entries), encoding="utf-8")


def imported(folder: Path, seeds: Path, root: Path, **settings: object) -> Timing:
    """Export imported maps or masks to `out.h5`."""
    cam = METHODS.parse({"method": "imported", **settings}, where="cam")
    write_json(folder / "cam.json", to_dict(cam))
    return timed(
        lambda: export_cams(
            config=ExportConfig(),
            index=folder / "index.csv",
            root=root,
            output=folder / "out.h5",
            compute=Compute(device="cpu", threads=1, workers=1),
            cam=folder / "cam.json",
            seeds_root=seeds,
            other_cams=folder / "cams.h5" if settings["kind"] == "masks" else None,
        )
    )


def compared(options: argparse.Namespace) -> Sequence[Row]:
    rows, root = [], options.root
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        index = write_seeds(folder, options.cams, root, options.images)
        masks = read_masks(folder / "masks.csv")
        evaluation = EvaluationConfig(cam_background=options.background)
        before = map_mious(folder, folder / "cams.h5", root, evaluation)
        cases = [
            (case, {"kind": "masks", "cams_from": "run", "background": options.background})
            for case in CASES
        ]
        for case, settings in [*cases, ("true label maps", {"kind": "label-maps"})]:
            seeds = folder / case
            if settings["kind"] == "masks":
                write_case(seeds, case, index, masks, root)
            else:
                seeds.mkdir()
                for record in index.records:
                    label = read_label(root / masks[record.name])
                    write_label(seeds / f"{record.name}.png", label)
            seconds = imported(folder, seeds, root, **settings)
            after = map_mious(folder, folder / "out.h5", root, evaluation)
            words = [f"{key} {before[key]:.1f} -> {after[key]:.1f}" for key in before]
            rows.append(
                Row(
                    stage="imported seeds, mIoU",
                    case=f"{case}, {len(index.records)} images",
                    ours=seconds,
                    images=len(index.records),
                    same=", ".join(words),
                    agrees=after["configured"] >= before["configured"],
                    note=f"background {options.background:g}",
                )
            )
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add_options(parser)
    add_seed_options(parser)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    return finish(compared(options), options)


if __name__ == "__main__":
    sys.exit(main())
