"""What bfloat16 does to seeds: the mIoU of one classifier's CAMs, exported in it and in float32.

    python -m benchmarks.cam_precision --run results/voc-lite --root data/VOC2012
    python -m benchmarks.cam_precision --run results/voc-lite --root data/VOC2012 --images 100

A run's own index, model and settings are used; of its training images those with masks, or
`--images` of them, evenly spaced. More than 0.1 between the two, at the configured background score
or at the best one, is a failure.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks.harness import Row, add_options, finish, timed
from benchmarks.voc_seeds import SPLIT, evenly, map_mious
from wsss.cam.config import ExportConfig
from wsss.cam.export import export_cams
from wsss.cam.model_file import CLASSIFIER
from wsss.data.build import build_masks
from wsss.data.formats.registry import FORMATS
from wsss.data.index import Index, read_index, write_index, write_masks
from wsss.evaluation.config import EvaluationConfig
from wsss.runtime.compute import Compute
from wsss.runtime.settings import parse, replace

LIMIT = 0.1  # of the mIoU, in percent


def settings(run: Path, stage: str) -> dict:  # type: ignore[type-arg]
    loaded: dict = json.loads((run / "config" / f"{stage}.json").read_text(encoding="utf-8"))  # type: ignore[type-arg]
    return loaded


def compared(options: argparse.Namespace) -> Sequence[Row]:
    run, root = options.run, options.root
    compute = Compute(device=options.device, threads=options.threads, workers=options.workers)
    export = parse(ExportConfig, settings(run, "export"), where=str(run))
    evaluation = parse(EvaluationConfig, settings(run, "evaluation"), where=str(run))
    model = run / "cam" / "model.safetensors"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        whole = read_index(run / "index.csv")
        tagged = [r for r in whole.records if r.tags and SPLIT in r.sets]
        index = Index(whole.classes, tuple(evenly(tagged, options.images)))
        masks = build_masks(FORMATS.parse(settings(run, "index"), where=str(run)), root, index)
        index = Index(index.classes, tuple(r for r in index.records if r.name in masks))
        write_index(index, folder / "index.csv")
        write_masks(masks, folder / "masks.csv")
        timings, mious = {}, {}
        for precision in ("float32", "bfloat16"):
            cams = folder / f"{precision}.h5"
            timings[precision] = timed(
                lambda precision=precision, cams=cams: export_cams(  # type: ignore[misc]
                    config=replace(export, precision=precision),
                    model=model,
                    index=folder / "index.csv",
                    root=root,
                    output=cams,
                    compute=compute,
                )
            )
            found = map_mious(folder, cams, root, evaluation, workers=options.workers)
            mious[precision] = found["configured"], found["best"]
    pairs = list(zip(mious["float32"], mious["bfloat16"], strict=True))
    words = " and ".join(f"{a:.3f} -> {b:.3f} ({b - a:+.3f})" for a, b in pairs)
    trained = CLASSIFIER.load(model).settings
    scales = " ".join(f"{scale:g}" for scale in export.scales)
    return [
        Row(
            stage="CAM export, seed mIoU",
            case=f"{len(index.records)} training images, scales {scales} x mirror",
            backbone=trained.vit.name if hasattr(trained, "vit") else trained.backbone.name,
            precision="bfloat16",
            images=len(index.records),
            naive=timings["float32"],
            ours=timings["bfloat16"],
            same=f"configured {words.replace(' and ', ', best ')}",
            agrees=all(abs(a - b) < LIMIT for a, b in pairs),
            note="'naive' is our own export in float32; model loading included",
        )
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add_options(parser)
    parser.add_argument("--run", type=Path, required=True, help="folder of a run: results/NAME")
    parser.add_argument("--root", type=Path, required=True, help="folder of its images and masks")
    parser.add_argument("--images", type=int, help="that many training images only")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--workers", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    return finish(compared(options), options)


if __name__ == "__main__":
    sys.exit(main())
