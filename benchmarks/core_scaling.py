"""IRN labels (CRF), pseudo-labels, prediction over a data set: what a second process brings.

    python -m benchmarks.core_scaling                # 8 images of 250x188 a stage
    python -m benchmarks.core_scaling --full         # 60 images of 500x375, 2 classes

The naive form is the stage in one process; ours is the stage as it runs, with one process a core.
Both are the whole command, Python's start and the processes' start included, since that is what a
user waits for; `steady` takes the start out: the time of all images less the time of half of them,
doubled. The label files must be equal byte for byte. To reach: 90 % of the number of cores.

The floor is what the machine allows: as many commands of one process at once as there are cores,
each with its share of the images. They share caches and memory, as the processes of one stage do,
but nothing has to be handed from one to another.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

from benchmarks.harness import Measured, Row, Timing, add_options, finish, measure
from benchmarks.synthetic import CLASSES, write_data_set
from wsss.data.index import Index, read_index, write_index
from wsss.irn.config import IrnConfig, LabelsConfig, PseudoLabelsConfig
from wsss.irn.labels import mine_labels
from wsss.irn.model_file import IRNET
from wsss.irn.pseudo_labels import make_pseudo_labels
from wsss.maps.map_store import MapStore, MapStoreWriter
from wsss.models.backbones import build_backbone
from wsss.models.deeplab import DeepLab
from wsss.models.irnet import IrNet
from wsss.runtime.compute import Compute, convolution_dtype
from wsss.segmentation.config import PredictionConfig, SegmentationConfig
from wsss.segmentation.model_file import SEGMENTATION
from wsss.segmentation.prediction import predict_split

SHARE = 0.9
STAGES = ("labels", "pseudo-labels", "prediction")


def write_model(path: Path) -> None:
    """An IRNet on EfficientNet-Lite0 as it is before training: it costs the same."""
    config = IrnConfig()
    torch.manual_seed(0)
    IRNET.save(path, IrNet(build_backbone(config.backbone)), config, training={})


def write_segmentation(path: Path) -> None:
    """A DeepLabV3+ on EfficientNet-Lite0 as it is before training: it costs the same."""
    config = SegmentationConfig()
    torch.manual_seed(0)
    network = DeepLab(build_backbone(config.backbone), len(CLASSES) + 1, config.head)
    SEGMENTATION.save(path, network, config, classes=CLASSES, training={})


def cut(folder: Path, count: int) -> None:
    """Put an index and a store of the first `count` images into `folder`/`count`."""
    index = read_index(folder / "index.csv")
    records = index.records[:count]
    target = folder / str(count)
    target.mkdir()
    write_index(Index(index.classes, records), target / "index.csv")
    with (
        MapStore(folder / "cams.h5") as store,
        MapStoreWriter(target / "cams.h5", classes=store.classes, attributes={}) as writer,
    ):
        for record in records:
            maps = store.read(record.name)
            writer.add(record.name, maps.class_indices.tolist(), maps.maps, maps.size)


def stage(name: str, folder: str, count: int, workers: int, tag: str = "") -> Callable[[], None]:
    """Return a run of a stage over `count` images; its files are named after number and tag."""
    base, inputs = Path(folder), Path(folder) / str(count)
    output = base / f"{name}-{workers}{tag}"
    compute = Compute(device="cpu", threads=1, workers=workers)
    cams = inputs / "cams.h5"
    common = {
        "index": inputs / "index.csv",
        "root": base / "data",
        "output": output,
    }

    def run() -> None:
        if name == "labels":
            mine_labels(
                config=LabelsConfig(foreground_threshold=0.3, background_threshold=0.05),
                cams=cams,
                workers=workers,
                **common,
            )
        elif name == "prediction":
            predict_split(
                config=PredictionConfig(split="train", scales=(0.75, 1.0, 1.25)),
                model=base / "segmentation.safetensors",
                output_crf=base / f"{name}-crf-{workers}{tag}",
                compute=compute,
                **common,
            )
        else:
            make_pseudo_labels(
                config=PseudoLabelsConfig(background=0.25),
                cams=cams,
                model=base / "irn.safetensors",
                maps=base / f"walked-{workers}{tag}.h5",
                compute=compute,
                **common,
            )

    return run


def best(name: str, folder: Path, count: int, workers: int, repeats: int) -> Measured:
    runs = [
        measure(stage, name=name, folder=str(folder), count=count, workers=workers)
        for _ in range(repeats)
    ]
    return min(runs, key=lambda run: run.seconds)


def side_by_side(name: str, folder: Path, count: int, cores: int) -> float:
    """Seconds until the last of so many commands, of one process and `count` images each, ends."""

    def command(number: int) -> float:
        arguments = {"folder": str(folder), "count": count, "workers": 1, "tag": f"-{number}"}
        return measure(stage, name=name, **arguments).seconds

    with ThreadPoolExecutor(cores) as pool:
        return max(pool.map(command, range(cores)))


def same_files(one: Path, other: Path) -> bool:
    names = sorted(path.name for path in one.iterdir())
    return names == sorted(path.name for path in other.iterdir()) and all(
        (one / name).read_bytes() == (other / name).read_bytes() for name in names
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--full", action="store_true", help="60 images of 500x375")
    parser.add_argument("--images", type=int, help="that many")
    parser.add_argument("--side", type=int, help="width of the images")
    parser.add_argument("--repeats", type=int, default=2, help="the quickest of so many counts")
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=list(STAGES))
    add_options(parser)
    options = parser.parse_args()
    torch.set_num_threads(1)
    cores = len(os.sched_getaffinity(0))
    dtype = str(convolution_dtype(torch.device("cpu"), "auto")).removeprefix("torch.")
    count = options.images or (60 if options.full else 8)
    width = options.side or (500 if options.full else 250)
    height = width * 3 // 4
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_data_set(folder, count=count, size=(height, width))
        write_model(folder / "irn.safetensors")
        write_segmentation(folder / "segmentation.safetensors")
        share = count // cores
        for part in {share, count // 2, count}:
            cut(folder, part)
        for what in options.stages:
            time = {
                (part, workers): best(what, folder, part, workers, options.repeats)
                for part in (count // 2, count)
                for workers in (1, cores)
            }
            equal = same_files(folder / f"{what}-1", folder / f"{what}-{cores}")
            steady = {
                workers: time[count, workers].seconds - time[count // 2, workers].seconds
                for workers in (1, cores)
            }
            efficiency = steady[1] / max(steady[cores], 1e-9) / cores
            together = min(side_by_side(what, folder, share, cores) for _ in range(options.repeats))
            alone, many = time[count, 1], time[count, cores]
            ceiling = alone.seconds / together / cores
            rows.append(
                Row(
                    stage=what,
                    case=f"{count} images {width}x{height}, 2 classes",
                    backbone="-" if what == "labels" else "Lite0",
                    precision="float32" if what == "labels" else dtype,
                    ours=Timing(many.seconds, many.cpu_s),
                    naive=Timing(alone.seconds, alone.cpu_s),
                    same="same bytes" if equal else "other bytes",
                    agrees=equal,
                    images=count,
                    peak_mb=many.grown_mb,
                    naive_peak_mb=alone.grown_mb,
                    floor_s=together,
                    floor=f"{cores} commands at once, {ceiling:.0%} of {cores}x",
                    target=SHARE * cores if options.full else None,
                    note=f"{cores} processes; steady: {efficiency:.0%} of {cores}x",
                    threads=1,
                )
            )
    return finish(rows, options)


if __name__ == "__main__":
    sys.exit(main())
