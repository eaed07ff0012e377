"""The digests see every number and no metadata."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from digests import differences, record
from PIL import Image
from safetensors.numpy import save_file


def _run(folder: Path, *, code: str, changed: str = "") -> Path:
    """Write one file of each kind; `changed` names the one in which a number differs."""
    run = folder / "demo"
    (run / "labels").mkdir(parents=True)
    wrong = {kind: float(kind == changed) for kind in ("tensor", "map", "pixel", "table")}
    tensors = {"a": np.arange(6, dtype=np.float32), "b": np.ones((2, 2), np.float16)}
    tensors["a"][3] += wrong["tensor"]
    save_file(tensors, str(run / "model.safetensors"), metadata={"code": code})
    with h5py.File(run / "cams.h5", "w") as file:
        file.attrs["code_hash"] = code
        maps = np.full((1, 3, 4), 0.5 + wrong["map"], np.float16)
        data = file.create_dataset("cams/one", data=maps, compression="gzip" if code else None)
        data.attrs["classes"] = np.array([2])
    picture = Image.fromarray(np.full((3, 4), 7 + int(wrong["pixel"]), np.uint8), mode="L")
    picture.convert("P").save(run / "labels" / "one.png", compress_level=9 if code else 0)
    (run / "miou.csv").write_text(f"class,iou\nmean,{0.5 + wrong['table']}\n")
    (run / "metrics.jsonl").write_text(code)
    return run


def test_metadata_and_compression_count_for_nothing(tmp_path: Path) -> None:
    first, second = _run(tmp_path / "1", code=""), _run(tmp_path / "2", code="other")
    digests = record([first])
    assert sorted(digests) == [
        *("demo/cams.h5", "demo/labels/*.png", "demo/miou.csv", "demo/model.safetensors"),
    ]
    assert digests == record([second])


@pytest.mark.parametrize(
    ("changed", "path"),
    [
        ("tensor", "demo/model.safetensors"),
        ("map", "demo/cams.h5"),
        ("pixel", "demo/labels/*.png"),
        ("table", "demo/miou.csv"),
    ],
)
def test_one_number_is_seen(tmp_path: Path, changed: str, path: str) -> None:
    before = record([_run(tmp_path / "1", code="")])
    after = record([_run(tmp_path / "2", code="", changed=changed)])
    assert [line.split(": ")[0] for line in differences(before, after)] == [path]


def test_the_command_compares(tmp_path: Path) -> None:
    before = record([_run(tmp_path, code="")])
    (tmp_path / "1.json").write_text(json.dumps(before))
    (tmp_path / "2.json").write_text(json.dumps({**before, "demo/more.csv": "x"}))
    script = [sys.executable, str(Path(__file__).with_name("digests.py")), "compare"]
    for other, status, text in (("1", 0, "equal: 4"), ("2", 1, "more.csv: only in the second")):
        command = [*script, str(tmp_path / "1.json"), str(tmp_path / f"{other}.json")]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert (done.returncode, text in done.stdout) == (status, True)
