r"""Time and memory of stages over more and more images: the first linear, the second flat.

    python -m benchmarks.scaling                                   # 100 and 400 images
    python -m benchmarks.scaling --sizes 1000 10000 82000 --export-sizes 1000 10000 20000 \
        --save scaling

The pictures are tiny (32 x 32 px), so that what is measured is everything but their pixels; code
paths are the real ones, in one process each. `index` builds and writes index and masks, `export`
the CAMs of an untrained EfficientNet-Lite0 at scale 1, `pseudo-labels` runs an untrained IRNet,
the walk and writes PNGs, `evaluation` scores maps at 100 background scores and label PNGs.
Memory is what a stage adds to the process after its imports. The list of images itself, which all
stages hold, is some hundred bytes an image. `--save` also keeps every point as CSV and a picture.
"""

from __future__ import annotations

import argparse
import csv
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from pathlib import Path

import torch

from benchmarks.core_scaling import write_model
from benchmarks.harness import (
    RESULTS,
    Measured,
    Row,
    Timing,
    add_options,
    finish,
    measure,
)
from benchmarks.machine import machine
from benchmarks.synthetic import CLASSES, write_data_set
from wsss.cam.config import ExportConfig
from wsss.cam.export import export_cams
from wsss.cam.methods.plain_config import PlainSettings
from wsss.cam.model_file import CLASSIFIER, cam_task
from wsss.data.build import build_index, build_masks
from wsss.data.formats.folder import FolderSettings
from wsss.data.index import write_index, write_masks
from wsss.evaluation.config import EvaluationConfig
from wsss.evaluation.scoring import score_labels, score_maps
from wsss.files import atomic_file
from wsss.irn.config import PseudoLabelsConfig
from wsss.irn.pseudo_labels import make_pseudo_labels
from wsss.runtime.compute import Compute
from wsss.runtime.settings import replace

SIDE = 32
STAGES = ("index", "export", "pseudo-labels", "evaluation")
# Most by which the time of an image may grow from the fewest to the most images.
SLOWER = 1.3
# Seconds beyond that which say nothing: small sizes take but a fraction of one.
NOISE_S = 0.5
# Most that memory may grow by: what an image may cost that only stands in the lists, and what
# the caches of the libraries may take until they are full.
BYTES_AN_IMAGE = 2000
CACHES_MB = 60


def write_classifier(path: Path) -> None:
    """A classifier as it is before training: it costs the same."""
    config = PlainSettings()
    config = replace(config, backbone=replace(config.backbone, weights="none"))
    torch.manual_seed(0)
    task = cam_task(config, len(CLASSES), device=torch.device("cpu"))
    CLASSIFIER.save(path, task.classifier, config, classes=CLASSES, training={})


def stage(name: str, folder: str) -> Callable[[], None]:
    """Return a run of one stage over the data set in `folder`."""
    base, compute = Path(folder), Compute(device="cpu", threads=1, workers=0)
    common = {"index": base / "index.csv", "root": base / "data"}

    def index() -> None:
        config = FolderSettings(classes=CLASSES)
        built = build_index(config, base / "data")
        write_index(built, base / "built" / "index.csv")
        write_masks(build_masks(config, base / "data", built), base / "built" / "masks.csv")

    def export() -> None:
        export_cams(
            config=ExportConfig(scales=(1.0,), mirror=False),
            model=base.parent / "classifier.safetensors",
            output=base / "exported.h5",
            compute=compute,
            **common,
        )

    def pseudo_labels() -> None:
        make_pseudo_labels(
            config=PseudoLabelsConfig(background=0.25),
            cams=base / "cams.h5",
            model=base.parent / "irn.safetensors",
            output=base / "pseudo_labels",
            maps=base / "walked.h5",
            compute=compute,
            **common,
        )

    def evaluation() -> None:
        named = {"masks": base / "masks.csv", "run": "tiny", "split": "train", **common}
        score_maps(
            config=EvaluationConfig(),
            maps=base / "cams.h5",
            output=base / "cam.csv",
            curve=base / "curve.csv",
            plot=base / "curve.png",
            stage="cam",
            background=0.3,
            workers=0,
            **named,
        )
        score_labels(
            labels=base / "data" / "masks",
            output=base / "labels.csv",
            stage="pseudo_label",
            labels_kind="pseudo",
            **named,
        )

    return {
        "index": index,
        "export": export,
        "pseudo-labels": pseudo_labels,
        "evaluation": evaluation,
    }[name]


Point = tuple[str, int, Measured]


def points(sizes: Mapping[str, Sequence[int]]) -> list[Point]:
    """Measure every stage at each of its sizes, the sizes ascending."""
    found = []
    with tempfile.TemporaryDirectory() as name:
        base = Path(name)
        write_model(base / "irn.safetensors")
        write_classifier(base / "classifier.safetensors")
        for count in sorted(set(chain(*sizes.values()))):
            folder = base / str(count)
            write_data_set(folder, count=count, size=(SIDE, SIDE), suffix="png", distinct=40)
            for what in (name for name, counts in sizes.items() if count in counts):
                run = measure(stage, name=what, folder=str(folder))
                per = 1e3 * run.seconds / count
                print(f"{what}: {count} images, {per:.2f} ms each, {run.grown_mb:.0f} MB more")
                found.append((what, count, run))
    return found


def rows_of(found: list[Point]) -> list[Row]:
    """One row a stage, at its largest size; the smallest size is what it is compared with."""
    rows = []
    for what in dict.fromkeys(name for name, _, _ in found):
        mine = [(count, run) for name, count, run in found if name == what]
        (few, first), (many, last) = mine[0], mine[-1]
        # Of the processor: what else runs on the machine does not make it longer.
        slower = (last.cpu_s / many) / max(first.cpu_s / few, 1e-9)
        late = last.cpu_s - SLOWER * first.cpu_s * many / few
        grown = last.grown_mb - first.grown_mb
        allowed = CACHES_MB + BYTES_AN_IMAGE * (many - few) / 1e6
        rows.append(
            Row(
                stage=f"scaling: {what}",
                case=f"{few} to {many} images {SIDE}x{SIDE}",
                ours=Timing(last.seconds, last.cpu_s),
                images=many,
                peak_mb=last.grown_mb,
                same=f"an image takes {slower:.2f} times as long; {grown:+.0f} MB",
                agrees=late <= NOISE_S and grown <= allowed,
                threads=1,
            )
        )
    return rows


def keep(found: list[Point], name: str) -> None:
    """Write every point as CSV, and the curves as a picture."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    stem = RESULTS / f"{machine().slug}_{name}_curve"
    header = ("stage", "images", "seconds", "cpu_s", "peak_mb", "grown_mb")
    path = stem.with_name(stem.name + ".csv")
    with atomic_file(path) as temporary, temporary.open("w", newline="") as out:
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(header)
        for what, count, run in found:
            cells = (run.seconds, run.cpu_s, run.peak_mb, run.grown_mb)
            writer.writerow((what, count, *(round(cell, 3) for cell in cells)))
    figure = Figure(figsize=(9, 3.8), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    time_axes, memory_axes = figure.subplots(1, 2)
    for what in dict.fromkeys(stage_name for stage_name, _, _ in found):
        mine = [(count, run) for stage_name, count, run in found if stage_name == what]
        counts = [count for count, _ in mine]
        time_axes.plot(counts, [run.cpu_s for _, run in mine], "o-", label=what)
        memory_axes.plot(counts, [run.grown_mb for _, run in mine], "o-", label=what)
    time_axes.set(xscale="log", yscale="log", xlabel="images", ylabel="processor time [s]")
    memory_axes.set(xscale="log", xlabel="images", ylabel="memory added [MB]")
    memory_axes.set_ylim(bottom=0)
    time_axes.legend()
    figure.suptitle(f"{SIDE} x {SIDE} px; {machine().processor}, one process", fontsize=9)
    with atomic_file(stem.with_name(stem.name + ".png")) as temporary:
        figure.savefig(temporary, format="png")
    print(f"kept: {path} and its picture")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[100, 400], help="ascending")
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=list(STAGES))
    parser.add_argument("--export-sizes", type=int, nargs="+", help="of the export, if others")
    add_options(parser)
    options = parser.parse_args()
    torch.set_num_threads(1)
    sizes = dict.fromkeys(options.stages, options.sizes)
    if "export" in sizes and options.export_sizes:
        sizes["export"] = options.export_sizes
    found = points(sizes)
    if options.save:
        keep(found, options.save)
    return finish(rows_of(found), options)


if __name__ == "__main__":
    sys.exit(main())
