"""What a run computed, as SHA-256, so that two revisions can be compared number by number.

    python tests/digests.py record results/demo results/demo-gt > before.json
    python tests/digests.py compare before.json after.json

Counted are the tensors of every model file, the maps of the map stores, the pixels of label PNGs
(one digest a folder) and the tables. Metadata, time stamps and compression are not: code hashes
change with every revision. Nothing of `wsss` is imported, so results of any revision can be read.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import h5py
import numpy as np
from PIL import Image

MAP_ATTRIBUTES = ("classes", "size")


def _digest(parts: Iterator[bytes]) -> str:
    total = hashlib.sha256()
    for part in parts:
        total.update(hashlib.sha256(part).digest())
    return total.hexdigest()


def _tensors(path: Path) -> Iterator[bytes]:
    # The format by hand: 8 bytes of length, a JSON header, the data. NumPy knows no bfloat16.
    content = path.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:start])
    for name in sorted(header.keys() - {"__metadata__"}):
        tensor = header[name]
        begin, end = tensor["data_offsets"]
        yield f"{name} {tensor['dtype']} {tensor['shape']}".encode()
        yield content[start + begin : start + end]


def _maps(path: Path) -> Iterator[bytes]:
    with h5py.File(path, "r") as file:
        yield repr(list(file.attrs.get("classes", ()))).encode()
        names: list[str] = []
        file.visit(names.append)
        for name in sorted(names):
            data = file[name]
            if isinstance(data, h5py.Dataset):
                values = np.asarray(data)
                about = [np.asarray(data.attrs.get(key, ())).tolist() for key in MAP_ATTRIBUTES]
                yield f"{name} {values.dtype} {values.shape} {about}".encode()
                yield values.tobytes()


def _table(path: Path) -> Iterator[bytes]:
    yield path.read_bytes()


READERS: dict[str, Callable[[Path], Iterator[bytes]]] = {
    "*.safetensors": _tensors,
    "*.h5": _maps,
    "*.csv": _table,
}


def _label_digests(folder: Path) -> str | None:
    """Hash names and pixels of a folder's label PNGs; None where it has none."""

    def parts() -> Iterator[bytes]:
        for path in sorted(folder.glob("*.png")):
            with Image.open(path) as picture:
                if picture.mode == "P":  # figures and panels are coloured
                    pixels = np.asarray(picture)
                    yield f"{path.name} {pixels.shape}".encode()
                    yield pixels.tobytes()

    found = list(parts())
    return f"{_digest(iter(found))} of {len(found) // 2}" if found else None


def record(folders: list[Path]) -> dict[str, str]:
    """Return path (from the name of the run on) -> SHA-256 of its content."""
    digests: dict[str, str] = {}
    for run in folders:
        if not run.is_dir():
            sys.exit(f"{run}: there is no such folder of results")
        for pattern, read in READERS.items():
            for path in run.rglob(pattern):
                digests[f"{run.name}/{path.relative_to(run).as_posix()}"] = _digest(read(path))
        for folder in [run, *(path for path in run.rglob("*") if path.is_dir())]:
            labels = _label_digests(folder)
            if labels is not None:
                digests[f"{run.name}/{folder.relative_to(run).as_posix()}/*.png"] = labels
    return dict(sorted(digests.items()))


def differences(before: dict[str, str], after: dict[str, str]) -> list[str]:
    """Say of each path that is not equal in both what is wrong with it."""
    lines = []
    for path in sorted(before.keys() | after.keys()):
        if path not in after:
            lines.append(f"{path}: only in the first")
        elif path not in before:
            lines.append(f"{path}: only in the second")
        elif before[path] != after[path]:
            lines.append(f"{path}: {before[path][:12]} is not {after[path][:12]}")
    return lines


def main() -> int:
    """Record or compare; 1 where two records differ."""
    parser = argparse.ArgumentParser(description="Digests of what runs computed.")
    actions = parser.add_subparsers(dest="action", required=True)
    recording = actions.add_parser("record", help="print the digests as JSON")
    recording.add_argument("results", type=Path, nargs="+", help="folders of runs")
    comparing = actions.add_parser("compare", help="compare two records")
    comparing.add_argument("records", type=Path, nargs=2)
    options = parser.parse_args()
    if options.action == "record":
        print(json.dumps(record(options.results), indent=1))
        return 0
    before, after = (json.loads(path.read_text(encoding="utf-8")) for path in options.records)
    found = differences(before, after)
    print("\n".join(found) or f"equal: {len(before)} digests")
    return 1 if found or not before else 0


if __name__ == "__main__":
    sys.exit(main())
