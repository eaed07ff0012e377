"""Label maps to export, with every label that there can be, and environments of other tools."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from wsss.data.exports.labels import LabelMaps
from wsss.data.images import write_label
from wsss.data.index import ImageRecord

CLASSES = ("ant", "bee & wasp", "cat")


def make_labels(folder: Path) -> tuple[LabelMaps, dict[str, np.ndarray]]:
    """Write blotches of three classes and of 255, a map without any class, and one of one row."""
    rng = np.random.default_rng(7)
    maps = {
        "blotches": np.kron(rng.choice([0, 1, 2, 3, 255], (6, 9)), np.ones((7, 5))),
        "speckles": rng.choice([0, 1, 3, 255], (33, 29), p=[0.7, 0.1, 0.1, 0.1]),
        "empty": np.zeros((10, 400)),
        "row": np.repeat([[1, 0, 2]], [300, 5, 95], axis=1),
    }
    labels = {name: values.astype(np.uint8) for name, values in maps.items()}
    records, files = [], {}
    for i, (name, label) in enumerate(sorted(labels.items())):
        height, width = label.shape
        tags = tuple(CLASSES[v - 1] for v in np.unique(label) if 0 < v < 255)
        sets = ("train",) if i else ("val",)
        records.append(ImageRecord(name, sets, tags, width, height, f"images/{name}.jpg"))
        files[name] = folder / "labels" / f"{name}.png"
        files[name].parent.mkdir(exist_ok=True)
        write_label(files[name], label)
    return LabelMaps(CLASSES, records, files, "tiny pseudo-labels"), labels


def python_with(package: str, folder: Path) -> Path:
    """Return the Python of an environment that has a tool; it would not fit into ours.

    It is made where WSSS_READERS, a folder of such environments, has none.
    """
    ready = Path(os.environ.get("WSSS_READERS", "")) / package / "bin" / "python"
    if ready.is_file():
        return ready
    made = folder / package
    python = made / "bin" / "python"
    uv = str(Path(sys.executable).with_name("uv"))
    # uv takes seconds where pip takes most of a minute, but does not read pip's configuration.
    with_uv = (
        [uv, "venv", "--quiet", "--python", sys.executable, str(made)],
        [uv, "pip", "install", "--quiet", "--python", str(python), package],
    )
    with_pip = (
        [sys.executable, "-m", "venv", "--clear", str(made)],
        [str(python), "-m", "pip", "install", "--quiet", package],
    )
    said = ""
    for steps in (with_uv, with_pip) if Path(uv).is_file() else (with_pip,):
        for step in steps:
            done = subprocess.run(step, capture_output=True, text=True, check=False)
            if done.returncode:
                said = done.stderr.strip()[-300:]
                break
        else:
            return python
    pytest.skip(f"{package} cannot be installed: {said}")


def run_script(python: Path, script: str, *arguments: str) -> str:
    """Run a script in another environment and return what it prints."""
    done = subprocess.run(
        [str(python), "-c", script, *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
