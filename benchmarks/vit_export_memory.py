"""Memory and time of one image's CAM export, as runs configure it; the refined ones above all.

    python -m benchmarks.vit_export_memory                              # voc-vit: DeiT-S, scale 1
    python -m benchmarks.vit_export_memory --scales 2                   # its attention four times
    python -m benchmarks.vit_export_memory --run voc-refined --run voc  # ResNet-38's CAMs refined
    python -m benchmarks.vit_export_memory --device cuda --scales 0.5 1 1.5 2

The image is noise and the weights are random, which changes neither. Each run is exported as by
`wsss export` in a process of its own, whose highest resident memory is read at its end. On a
CPU more than 2 GB is a failure.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from benchmarks.harness import ROOT, Row, Timing, add_options, finish
from wsss.cam.config import CamSettings, ExportConfig
from wsss.cam.methods.registry import METHODS
from wsss.cam.model_file import CLASSIFIER, cam_task
from wsss.data.index import ImageRecord, Index, write_index
from wsss.files import write_json
from wsss.project.config import ProjectConfig, load_config
from wsss.runtime.compute import convolution_dtype
from wsss.runtime.registry import used
from wsss.runtime.settings import replace, to_dict

CLASSES = tuple(f"class_{number:02d}" for number in range(20))
LIMIT_MB = 2000
# Runs the command line and prints the kernel's count of the most memory this process ever had.
MEASURED = """
import sys
from wsss.cli import main
status = main(sys.argv[1:])
lines = open("/proc/self/status").read().splitlines()
print("peak_kib", next(line.split()[1] for line in lines if line.startswith("VmHWM:")))
sys.exit(status)
"""


def random_model(config: CamSettings, path: Path) -> None:
    """Write the classifier of `config` as if it had been trained; a reconstructor plays no part."""
    alone = {"acr": "cam", "acr-vit": "mct"}
    values = {**to_dict(config), "method": alone.get(config.method, config.method)}
    for network in {"backbone", "vit"} & set(values):
        values[network]["weights"] = "none"
    config = METHODS.parse(used(METHODS, values, {}, where="cam"), where="cam")
    torch.manual_seed(0)
    task = cam_task(config, len(CLASSES), device=torch.device("cpu"))
    CLASSIFIER.save(path, task.classifier, config, classes=CLASSES, training={})


def export_settings(project: ProjectConfig, run: str, options: argparse.Namespace) -> ExportConfig:
    """The run's, with what the options change."""
    export = project.run(run).stages["export"]
    if options.scales:
        export = replace(export, scales=tuple(options.scales))
    if options.precision:
        export = replace(export, precision=options.precision)
    assert isinstance(export, ExportConfig)
    return export


def write_inputs(
    project: ProjectConfig, run: str, export: ExportConfig, size: tuple[int, int], folder: Path
) -> list[str]:
    """Write model, image, index and settings; return the stage's arguments."""
    width, height = size
    write_json(folder / "export.json", to_dict(export))
    noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(noise).save(folder / "noise.png")
    record = ImageRecord("noise", ("train",), CLASSES[:2], width, height, "noise.png")
    write_index(Index(CLASSES, (record,)), folder / "index.csv")
    random_model(project.run(run).stages["cam"], folder / "model.safetensors")
    arguments = ["--model", "model.safetensors"]
    if export.refine_from is not None:
        random_model(project.run(export.refine_from).stages["cam"], folder / "lender.safetensors")
        arguments += ["--attention-model", "lender.safetensors"]
    return ["--config", "export.json", "--index", "index.csv", "--root", ".", *arguments]


def measured(project: ProjectConfig, run: str, options: argparse.Namespace) -> Row:
    """Export one image as `run` does."""
    export = export_settings(project, run, options)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        arguments = write_inputs(project, run, export, options.size, folder)
        arguments += ["--output", "cams.h5", "--device", options.device]
        arguments += ["--threads", str(options.threads), "--workers", "0"]
        before, start = os.times(), time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-c", MEASURED, "export", *arguments],
            cwd=folder,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        wall, after = time.perf_counter() - start, os.times()
    busy = sum(after[2:4]) - sum(before[2:4])
    peak_mb = int(done.stdout.split("peak_kib")[1]) * 1024 / 1e6
    cam = project.run(run).stages["cam"]
    alone = export.refine_from is None and hasattr(cam, "vit")
    device = torch.device(options.device)
    dtype = torch.float32 if alone else convolution_dtype(device, export.precision)
    scales = " ".join(f"{scale:g}" for scale in export.scales)
    within = f"{peak_mb:.0f} MB, {LIMIT_MB} allowed"
    return Row(
        stage="CAM export, memory",
        case=f"{run}: {options.size[0]}x{options.size[1]}, scales {scales}"
        + (" x mirror" if export.mirror else "")
        + f", refine {export.refine}",
        backbone=cam.vit.name if hasattr(cam, "vit") else cam.backbone.name,
        precision=str(dtype).removeprefix("torch."),
        ours=Timing(wall, busy),
        same=within if device.type == "cpu" else "-",
        agrees=device.type != "cpu" or peak_mb <= LIMIT_MB,
        peak_mb=peak_mb,
        note=f"the whole process, {busy:.0f} s of processor time, start and loading included",
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add_options(parser)
    parser.add_argument("--run", action="append", help="a run of config.yaml; repeatable")
    parser.add_argument("--scales", type=float, nargs="+", help="instead of the run's")
    parser.add_argument("--precision", help="instead of the run's")
    parser.add_argument("--size", type=int, nargs=2, default=(500, 375), help="width, height")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    project = load_config(folder=ROOT)
    return finish([measured(project, run, options) for run in options.run or ["voc-vit"]], options)


if __name__ == "__main__":
    sys.exit(main())
