"""Memory of each stage over a million pictures, as its command runs it.

    python -m benchmarks.million                        # 2,000 pictures, a minute
    python -m benchmarks.million --pictures 1000000     # hours

The pictures are of 16 x 16 px, and hard links to a few real ones, as are their CAMs in the map
store: what is measured is everything but their pixels. Every command is a process of its own, and
what is printed is its highest resident memory as the kernel counts it (`wait4`), imports included,
or that of a process it started, where that was more. `index` and `masks` read all pictures; `plan`
is `snakemake -n` over them, the first time, when all are hashed, and again; `export`, `labels` and
`pseudo-labels` do one of `--shards` parts, with untrained networks, and read the list and the map
store of all; `score-maps` and `score-labels` score the pictures of the set `val`, one of
`--shards`, and `score-labels, all` the rest, too. Where `index` is not among the `--steps`, the
lists are written as it and `masks` write them, and of the pictures only those are made that
`export`, `labels`, `pseudo-labels` and `score-maps` open. The exit status is 1 where one took more
than `--most-mb`.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import yaml
from PIL import Image

from benchmarks.core_scaling import write_model
from benchmarks.harness import MB, ROOT
from benchmarks.scaling import write_classifier
from benchmarks.synthetic import CLASSES, cams, picture
from wsss.cam.config import ExportConfig
from wsss.data.formats.folder import FolderSettings
from wsss.data.images import write_label
from wsss.data.index import ImageRecord, Index, write_index, write_masks
from wsss.evaluation.config import EvaluationConfig
from wsss.files import write_json
from wsss.irn.config import LabelsConfig, PseudoLabelsConfig
from wsss.maps.map_store import MapStoreWriter
from wsss.runtime.names import NameMap
from wsss.runtime.settings import Settings, to_dict

SIDE = 16
# An inode of ext4 has 65,000 links at most.
LINKS = 50_000
RUN = "million"
STEPS = (
    *("plan", "index", "masks", "plan again", "export", "labels", "pseudo-labels"),
    *("score-maps", "score-labels", "score-labels, all"),
)
LOCAL = {
    "compute": {"device": "cpu", "threads": 1, "workers": 0},
    "roots": {"pictures": "data"},
    "runs": {RUN: {"root": "pictures", "index": {"format": "folder", "classes": [*CLASSES]}}},
}


@dataclass(frozen=True)
class Used:
    """What a command took: seconds on the wall, of the processor, most resident memory (1e6 B)."""

    wall_s: float
    cpu_s: float
    peak_mb: float


# Starts a command and says what it took. A process begins its count of memory with that of the one
# that started it, and this one holds PyTorch.
LAUNCHER = """
import json, os, subprocess, sys, time
start = time.perf_counter()
with open(sys.argv[1], "w") as log:
    process = subprocess.Popen(sys.argv[2:], stdout=log, stderr=log)
    _, status, used = os.wait4(process.pid, 0)
process.returncode = os.waitstatus_to_exitcode(status)
wall_s = time.perf_counter() - start
print(json.dumps([process.returncode, wall_s, used.ru_utime + used.ru_stime, used.ru_maxrss]))
"""


def used_by(command: list[str], folder: Path, log: Path) -> Used:
    """Run a command to its end.

    Raises:
        RuntimeError: It failed; the log says why.
    """
    environment = {**os.environ, "PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"}
    words = [sys.executable, "-I", "-S", "-c", LAUNCHER, str(log), *command]
    done = subprocess.run(
        words, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True, check=True
    )
    status, wall_s, cpu_s, peak = json.loads(done.stdout)
    if status:
        raise RuntimeError(f"{' '.join(command)} failed: {log.read_text()[-2000:]}")
    return Used(wall_s, cpu_s, peak * (1 if sys.platform == "darwin" else 1024) / MB)


def names(count: int) -> Iterator[str]:
    """Yield the pictures' names."""
    return (f"picture_{number:07d}" for number in range(count))


def tags_of(number: int) -> tuple[str, str]:
    """Return two tags, in the classes' order."""
    first = number % (len(CLASSES) - 1)
    return CLASSES[first], CLASSES[first + 1]


def write_pictures(folder: Path, count: int, shards: int, keep: Callable[[int], bool]) -> None:
    """Write data/ with labels.csv, and the pictures and masks that `keep` holds for.

    One of `shards` pictures is in `val`.
    """
    data = folder / "data"
    for name in ("images", "masks"):
        (data / name).mkdir(parents=True)
    sources: dict[tuple[tuple[str, str], int], tuple[Path, Path]] = {}
    with (data / "labels.csv").open("w") as table:
        table.write("image,tags,set\n")
        for number, name in enumerate(names(count)):
            image, mask = data / f"images/{name}.png", data / f"masks/{name}.png"
            tags = tags_of(number)
            which = tags, number // LINKS
            if keep(number) and which in sources:
                os.link(sources[which][0], image)
                os.link(sources[which][1], mask)
            elif keep(number):
                rng = np.random.default_rng(number)
                Image.fromarray(picture(rng, SIDE, SIDE)).save(image)
                label = np.zeros((SIDE, SIDE), np.uint8)
                label[2:, :8], label[2:, 8:] = (CLASSES.index(tag) + 1 for tag in tags)
                write_label(mask, label)
                sources[which] = image, mask
            chosen = "val" if number % shards == shards - 1 else "train"
            table.write(f"{name}.png,{';'.join(tags)},{chosen}\n")


def write_lists(folder: Path, count: int, shards: int) -> None:
    """Write index.csv and masks.csv."""
    records = (
        ImageRecord(
            name,
            ("val" if number % shards == shards - 1 else "train",),
            tags_of(number),
            SIDE,
            SIDE,
            f"images/{name}.png",
        )
        for number, name in enumerate(names(count))
    )
    write_index(Index(CLASSES, records), folder / "index.csv")
    masks = NameMap((name, f"masks/{name}.png") for name in names(count))
    write_masks(masks, folder / "masks.csv")


def write_store(path: Path, count: int, keep: Callable[[int], bool]) -> None:
    """Write a store of CAMs of the pictures that `keep` holds for; one of each pair of tags."""
    maps = cams(np.random.default_rng(0), 2, SIDE, SIDE)
    chosen = [(number, name) for number, name in enumerate(names(count)) if keep(number)]
    first: dict[tuple[str, str], str] = {}
    with MapStoreWriter(path, classes=CLASSES, attributes={}) as store:
        for number, name in chosen:
            tags = tags_of(number)
            if tags not in first:
                first[tags] = name
                store.add(name, [CLASSES.index(tag) for tag in tags], maps, (SIDE, SIDE))
    with h5py.File(path, "r+", libver="latest") as file:
        sources = {tags: file["maps"][name] for tags, name in first.items()}
        for number, name in chosen:
            if first[tags_of(number)] != name:
                file["maps"][name] = sources[tags_of(number)]


def write_project(folder: Path) -> None:
    """Copy the workflow and the library, and write the run's settings and untrained models."""
    for name in ("Snakefile", "config.yaml"):
        shutil.copy(ROOT / name, folder / name)
    for name in ("workflow", "profiles", "envs", "wsss"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, folder / name, ignore=ignored)
    (folder / "config.local.yaml").write_text(yaml.safe_dump(LOCAL))
    write_model(folder / "irn.safetensors")
    write_classifier(folder / "classifier.safetensors")
    settings: dict[str, Settings] = {
        "index": FolderSettings(classes=CLASSES),
        "export": ExportConfig(scales=(1.0,), mirror=False),
        "labels": LabelsConfig(foreground_threshold=0.3, background_threshold=0.05),
        "pseudo_labels": PseudoLabelsConfig(background=0.25),
        "evaluation": EvaluationConfig(),
    }
    for name, values in settings.items():
        write_json(folder / f"config/{name}.json", to_dict(values))


def command_of(step: str, shards: int) -> list[str]:
    """Return the command of a step, run in the project's folder."""
    results = f"results/{RUN}"
    index = f"--index {results}/index.csv --root data"
    memory = "--memory results/.digests"
    part = f"--shard 1/{shards} --workers 0"
    compute = "--device cpu --threads 1"
    truth = f"{index} --masks {results}/masks.csv --run {RUN}"
    labels = f"score-labels --labels data/masks --stage segmentation {truth}"
    plan = f"-n --quiet --cores 1 {results}/miou.csv"
    words = {
        "plan": plan,
        "plan again": plan,
        "index": f"index --config config/index.json --root data {memory} "
        f"--output {results}/index.csv",
        "masks": f"masks --config config/index.json {index} {memory} --output {results}/masks.csv",
        "export": f"export --config config/export.json {index} {part} {compute} "
        "--model classifier.safetensors --output shards/export",
        "labels": f"labels --config config/labels.json {index} {part} "
        "--cams cams.h5 --output shards/labels",
        "pseudo-labels": f"pseudo-labels --config config/pseudo_labels.json {index} {part} "
        f"{compute} --cams cams.h5 --model irn.safetensors --output shards/pseudo_labels",
        "score-maps": f"score-maps --config config/evaluation.json {truth} --split val "
        "--maps val.h5 --stage cam --background 0.3 --workers 0 "
        "--output cam.csv --curve curve.csv --plot curve.png",
        "score-labels": f"{labels} --split val --output val.csv",
        "score-labels, all": f"{labels} --split train --output train.csv",
    }[step].split()
    snakemake = str(Path(sys.executable).parent / "snakemake")
    program = [snakemake] if words[0] == "-n" else [sys.executable, "-m", "wsss"]
    return [*program, *words]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pictures", type=int, default=2000)
    parser.add_argument("--shards", type=int, default=100)
    parser.add_argument("--steps", nargs="+", choices=STEPS, default=STEPS, metavar="STEP")
    parser.add_argument("--most-mb", type=float, default=1000)
    parser.add_argument("--folder", type=Path, help="an empty one, kept (default: a temporary one)")
    options = parser.parse_args()
    found: dict[str, Used] = {}
    with tempfile.TemporaryDirectory(dir=options.folder) as temporary:
        folder = Path(temporary)
        start = time.perf_counter()
        write_project(folder)
        listed = "index" in options.steps
        # The first part of those that are not in `val` ends here or before.
        first = options.pictures // options.shards + 1
        write_pictures(
            folder,
            options.pictures,
            options.shards,
            lambda n: listed or n <= first or is_val(n, options),
        )
        if not listed:
            write_lists(folder / f"results/{RUN}", options.pictures, options.shards)
        if {"labels", "pseudo-labels"} & set(options.steps):
            write_store(folder / "cams.h5", options.pictures, lambda n: not is_val(n, options))
        if "score-maps" in options.steps:
            write_store(folder / "val.h5", options.pictures, lambda n: is_val(n, options))
        print(f"{options.pictures} pictures, written in {time.perf_counter() - start:.0f} s")
        for step in options.steps:
            log = folder / f"{step}.log"
            used = found[step] = used_by(command_of(step, options.shards), folder, log)
            print(
                f"{step:<20} {used.peak_mb:5.0f} MB  {used.wall_s:6.0f} s, "
                f"{used.cpu_s:6.0f} s of processor",
                flush=True,
            )
    return 1 if max(used.peak_mb for used in found.values()) > options.most_mb else 0


def is_val(number: int, options: argparse.Namespace) -> bool:
    """Say whether a picture is in `val`."""
    return bool(number % options.shards == options.shards - 1)


if __name__ == "__main__":
    sys.exit(main())
