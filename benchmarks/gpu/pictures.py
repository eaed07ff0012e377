"""Part 7: `voc-lite` on real pictures, ACR and the plain classifier side by side, to their seeds.

Needs VOC's layout in the folder that WSSS_VOC_ROOT names. Both methods get the same updates of the
classifier and the same number of epochs, as many as the time allows.
"""

from __future__ import annotations

import csv
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.gpu.chain import Project
from benchmarks.gpu.part import Findings, Line
from wsss.files import write_text

RUNS = """
compute: {{device: "{device}", threads: 2, workers: 5}}
roots: {{voc: "{root}"}}
runs:
  pictures: {{extends: voc-lite, stop_after: cam, cam: {{epochs: {epochs}}}}}
  pictures-cam: {{extends: pictures, cam: {{method: cam}}}}
"""
EPOCHS = 40
NAMES = ("pictures", "pictures-cam")


def run(device: str, end: float) -> Findings:
    """Train both at once, export, score."""
    root = os.environ.get("WSSS_VOC_ROOT", "")
    if not Path(root, "JPEGImages").is_dir():
        yield Line("real pictures", "passed over: WSSS_VOC_ROOT names no folder with PASCAL VOC")
        return
    if not device.startswith("cuda"):
        yield Line("real pictures", "not run: no GPU")
        return
    with tempfile.TemporaryDirectory() as temporary:
        project = Project(Path(temporary) / "pictures", device)
        text = RUNS.format(device=device, root=Path(root).resolve(), epochs=EPOCHS)
        write_text(project.folder / "config.local.yaml", text)
        start = time.monotonic()
        targets = [f"results/{name}/miou.csv" for name in NAMES]
        process = project.start(*targets, cores=16)
        try:
            code = process.wait(timeout=max(1.0, end - time.monotonic()))
        except subprocess.TimeoutExpired:
            project.kill(process)
            yield Line("real pictures", "ran out of time", holds=False)
            return
        seconds = time.monotonic() - start
        if code != 0:
            print(project.tail(), file=sys.stderr)
            yield Line("real pictures", f"exit status {code}", holds=False)
            return
        for name in NAMES:
            with (project.folder / f"results/{name}/miou.csv").open(encoding="utf-8") as file:
                rows = [row for row in csv.DictReader(file) if row["class"] == "mean"]
            best = max(float(row["iou"]) for row in rows)
            words = f"{EPOCHS} epochs, both at once in {seconds:.0f} s: best seeds {best:.1%}"
            yield Line(f"real pictures, {name}", words, values={"best": best, "seconds": seconds})
