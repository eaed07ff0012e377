"""Memory and time of one image's CAM export with a transformer's attention, as a run configures it.

    python benchmarks/vit_export_memory.py                              # voc-vit: DeiT-S, scale 1
    python benchmarks/vit_export_memory.py --scales 2                   # its attention four times
    python benchmarks/vit_export_memory.py --run voc-refined            # ResNet-38's CAMs refined
    python benchmarks/vit_export_memory.py --device cuda --scales 0.5 1 1.5 2

The image is noise and the weights are random, which changes neither. The stage runs as `wsss
export-cams` in a process of its own, whose highest resident memory is read at its end. On a CPU
more than 2 GB is a failure.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from wsss.cam.config import CamConfig
from wsss.cam.methods import method, save_cam_model
from wsss.config import ProjectConfig, load_config
from wsss.data.index import ImageRecord, Index, write_index
from wsss.files import write_json
from wsss.settings import to_dict
from wsss.training.loop import TrainingSummary

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


def random_model(config: CamConfig, path: Path) -> None:
    """Write the classifier of `config` as if it had been trained; a reconstructor plays no part."""
    alone = {"acr": "cam", "acr-vit": "mct"}
    config = replace(
        config,
        method=alone.get(config.method, config.method),
        backbone=replace(config.backbone, weights="none"),
        vit=replace(config.vit, weights="none"),
    )
    torch.manual_seed(0)
    task = method(config.method).task(config, len(CLASSES), device=torch.device("cpu"))
    save_cam_model(path, task.classifier, config, CLASSES, TrainingSummary(0, 0, 0))


def write_inputs(project: ProjectConfig, options: argparse.Namespace, folder: Path) -> list[str]:
    """Write model, image, index and settings; return the stage's arguments."""
    width, height = options.size
    stages = project.run(options.run).stages
    export = stages["export"]
    if options.scales:
        export = replace(export, scales=tuple(options.scales))
    write_json(folder / "export.json", to_dict(export))
    noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(noise).save(folder / "noise.png")
    record = ImageRecord("noise", ("train",), CLASSES[:2], width, height, "noise.png")
    write_index(Index(CLASSES, (record,)), folder / "index.csv")
    random_model(stages["cam"], folder / "model.safetensors")
    arguments = ["--model", "model.safetensors"]
    if export.refine_from is not None:
        random_model(project.run(export.refine_from).stages["cam"], folder / "lender.safetensors")
        arguments += ["--attention-model", "lender.safetensors"]
    print(f"{options.run}: {width} x {height}, scales {list(export.scales)}, ", end="")
    print(f"mirror {export.mirror}, refine {export.refine}, {len(CLASSES)} classes, 2 tagged")
    return ["--config", "export.json", "--index", "index.csv", "--root", ".", *arguments]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", default="voc-vit", help="a run of config.yaml")
    parser.add_argument("--scales", type=float, nargs="+", help="instead of the run's")
    parser.add_argument("--size", type=int, nargs=2, default=(500, 375), help="width, height")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    repository = Path(__file__).resolve().parent.parent
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        arguments = write_inputs(load_config(folder=repository), options, folder)
        arguments += ["--output", "cams.h5", "--device", options.device]
        arguments += ["--threads", str(options.threads), "--workers", "0"]
        done = subprocess.run(
            [sys.executable, "-c", MEASURED, "export-cams", *arguments],
            cwd=folder,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
    # Of the processor: another program beside this one does not make it longer.
    busy = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = busy.ru_utime + busy.ru_stime
    peak_mb = int(done.stdout.split("peak_kib")[1]) * 1024 / 1e6
    print(f"process, from the start of Python: {peak_mb:.0f} MB resident at most, ", end="")
    print(f"{seconds:.0f} s of processor time")
    if options.device == "cpu" and peak_mb > LIMIT_MB:
        print(f"more than the {LIMIT_MB} MB it is to stay under", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
