"""Pseudo-labels from the same CAMs, made in each way: mIoU and time.

    python -m benchmarks.pseudo_labels --cams results/voc-lite/cams.h5 --root data/VOC2012
    python -m benchmarks.pseudo_labels --cams ... --root ... --irn results/voc-lite/irn/model...

`pseudo_labels.method: crf`, refined by the dense CRF (`refine: crf`) and by PAR (`refine: par`);
with `--irn` also the random walk along a trained IRNet's affinities (`method: irn`), whose training
is not in its time. No pixel is left out as unsure (`confidence: 0`), so that all are scored on
every pixel; the background score is `--background`, of the walk `--walk-background`.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.harness import Row, Timing, add_options, finish, timed
from benchmarks.voc_seeds import add_seed_options, label_miou, map_mious, write_seeds
from wsss.evaluation.config import EvaluationConfig
from wsss.irn.label_methods import LABEL_METHODS
from wsss.irn.label_stage import make_labels
from wsss.runtime.compute import InferenceCompute


def labels(
    folder: Path, root: Path, settings: Mapping[str, Any], compute: Any, model: Path | None
) -> Timing:
    """Make pseudo-labels in `labels/`, of the CAMs in the folder."""
    config: Any = LABEL_METHODS.parse(dict(settings), where="pseudo_labels")
    return timed(
        lambda: make_labels(
            config=config,
            cams=folder / "cams.h5",
            index=folder / "index.csv",
            root=root,
            output=folder / "labels",
            maps=folder / "walked.h5",
            compute=compute,
            model=model,
        )
    )


def compared(options: argparse.Namespace) -> Sequence[Row]:
    root = options.root
    compute = InferenceCompute(
        device=options.device, threads=options.threads, workers=options.workers
    )
    crf = {"method": "crf", "background": options.background, "confidence": 0.0}
    ways: dict[str, dict[str, Any]] = {
        "method crf, refine crf": {**crf, "refine": "crf"},
        "method crf, refine par": {**crf, "refine": "par"},
    }
    if options.irn is not None:
        ways["method irn"] = {"method": "irn", "background": options.walk_background}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        index = write_seeds(folder, options.cams, root, options.images)
        evaluation = EvaluationConfig(cam_background=options.background)
        cams = map_mious(folder, folder / "cams.h5", root, evaluation)
        rows = []
        for way, settings in ways.items():
            seconds = labels(folder, root, settings, compute, options.irn)
            miou = label_miou(folder, folder / "labels", root)
            evaluation = EvaluationConfig(cam_background=settings["background"])
            walked = map_mious(folder, folder / "walked.h5", root, evaluation)
            found = f"CAMs {cams['configured']:.1f} (best {cams['best']:.1f}), labels {miou:.1f}"
            rows.append(
                Row(
                    stage="pseudo-labels, mIoU",
                    case=f"{way}, {len(index.records)} images",
                    ours=seconds,
                    images=len(index.records),
                    same=f"{found} (best {walked['best']:.1f})",
                    note=f"background {settings['background']:g}, {options.workers} workers",
                )
            )
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add_options(parser)
    add_seed_options(parser)
    parser.add_argument("--irn", type=Path, help="a trained IRNet: results/NAME/irn/model...")
    parser.add_argument("--walk-background", type=float, default=0.42)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    return finish(compared(options), options)


if __name__ == "__main__":
    sys.exit(main())
