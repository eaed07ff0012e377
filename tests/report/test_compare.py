"""Two runs side by side."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from wsss.cli import main
from wsss.evaluation.confusion import Scores
from wsss.evaluation.tables import rows_of_scores, write_rows


def write_run(folder: Path, rate: float, iou: list[float], stage: str = "cam") -> Path:
    (folder / "config").mkdir(parents=True)
    values = {"learning_rate": rate, "backbone": {"name": "resnet50"}}
    (folder / "config" / "segmentation.json").write_text(json.dumps(values))
    scores = Scores(*(np.array(iou) for _ in range(3)))
    rows = rows_of_scores(
        scores,
        ("cat", "dog"),
        run=folder.name,
        stage=stage,
        labels="pseudo",
        split="train",
        selection="configured",
        threshold=0.3,
    )
    write_rows(folder / "miou.csv", rows)
    return folder


def cells(text: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines()]


def test_settings_scores_and_classes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = write_run(tmp_path / "one", 0.1, [0.9, 0.5, float("nan")])
    other = write_run(tmp_path / "other", 0.2, [0.8, 0.6, 0.1])
    assert main(["compare", str(one), str(other), "--output", str(tmp_path / "both.md")]) == 0
    printed = capsys.readouterr().out
    assert (tmp_path / "both.md").read_text() == printed
    rows = cells(printed)
    assert ["segmentation.learning_rate", "0.1", "0.2"] in rows
    assert "resnet50" not in printed
    assert ["cam", "train", "configured", "70.0", "50.0", "-20.0"] in rows
    names = [row[0] for row in rows if row and row[0] in ("background", "cat", "dog")]
    assert names == ["cat", "background", "dog"]
    assert ["cat", "50.0", "60.0", "+10.0"] in rows and ["dog", "-", "10.0", "-"] in rows


def test_stages_that_one_of_them_lacks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = write_run(tmp_path / "one", 0.1, [0.9, 0.5, 0.4])
    other = write_run(tmp_path / "other", 0.1, [0.8, 0.6, 0.1], stage="segmentation")
    assert main(["compare", str(one), str(other)]) == 0
    printed = capsys.readouterr().out
    assert "None." in printed and "## Classes" not in printed
    assert ["cam", "train", "configured", "60.0", "-", "-"] in cells(printed)


def test_what_is_no_run_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = write_run(tmp_path / "one", 0.1, [0.9, 0.5, 0.4])
    assert main(["compare", str(one), str(tmp_path)]) == 2
    assert "no run is here" in capsys.readouterr().err
    assert main(["compare", str(one), str(one)]) == 2
    assert "the same run" in capsys.readouterr().err


def test_what_is_no_run_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = write_run(tmp_path / "one", 0.1, [0.9, 0.5, 0.4])
    (tmp_path / "damaged" / "config").mkdir(parents=True)
    (tmp_path / "damaged" / "config" / "cam.json").write_text("[]")
    (tmp_path / "loop").symlink_to("loop")
    for name, words in (("damaged", "expected: an object"), ("loop", "no run is here")):
        assert main(["compare", str(tmp_path / name), str(one)]) == 2
        assert words in capsys.readouterr().err


def test_only_a_comparison_is_written_over(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = write_run(tmp_path / "one", 0.1, [0.9, 0.5, 0.4])
    other = write_run(tmp_path / "other", 0.1, [0.8, 0.6, 0.1])
    notes = tmp_path / "notes.md"
    notes.write_text("# One and other\n\nMine.\n")
    words = ["compare", str(one), str(other), "--output"]
    assert main([*words, str(notes)]) == 2
    assert "no result of this command" in capsys.readouterr().err
    assert notes.read_text() == "# One and other\n\nMine.\n"
    for _ in range(2):
        assert main([*words, str(tmp_path / "both.md")]) == 0
