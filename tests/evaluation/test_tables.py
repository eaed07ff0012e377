"""Score tables: collected in the stages' order, printed for people."""

from __future__ import annotations

import numpy as np
import pytest

from wsss.errors import UserError
from wsss.evaluation.confusion import scores_from_confusion
from wsss.evaluation.tables import collect, format_table, read_rows, rows_of_scores, write_rows


def table(path, stage, iou_percent, *, selection="configured", threshold=None, labels="pseudo"):
    # One class and background: `iou_percent` of the union is common to both.
    wrong = 100 - iou_percent
    counts = np.array([[iou_percent, wrong], [0, 0]], dtype=np.int64)
    return rows_of_scores(
        scores_from_confusion(counts),
        ("ant",),
        run="tiny",
        stage=stage,
        labels=labels,
        split="val" if stage.startswith("seg") else "train",
        selection=selection,
        threshold=threshold,
    )


def test_rows_leave_undefined_scores_empty():
    rows = table(None, "cam", 80, threshold=0.25)
    by_class = {row["class"]: row for row in rows}
    assert list(by_class) == ["background", "ant", "mean"]
    assert by_class["background"]["iou"] == "0.800000"
    # "ant" is predicted and never true: IoU 0 counts, recall is undefined.
    assert by_class["ant"]["iou"] == "0.000000"
    assert by_class["ant"]["recall"] == ""
    assert by_class["mean"]["iou"] == "0.400000"
    assert by_class["mean"]["recall"] == "0.800000"
    assert by_class["mean"]["threshold"] == "0.25"


def test_collect_orders_the_stages(tmp_path):
    write_rows(tmp_path / "crf.csv", table(None, "segmentation_crf", 66))
    write_rows(tmp_path / "seg.csv", table(None, "segmentation", 64))
    assert b"\r" not in (tmp_path / "seg.csv").read_bytes()
    cam = table(None, "cam", 40, threshold=0.25)
    cam += table(None, "cam", 44, selection="best", threshold=0.31)
    write_rows(tmp_path / "cam.csv", cam)
    paths = [tmp_path / name for name in ("crf.csv", "seg.csv", "cam.csv")]
    collect(scores=paths, output=tmp_path / "miou.csv")
    rows = read_rows(tmp_path / "miou.csv")
    stages = list(dict.fromkeys((row["stage"], row["selection"]) for row in rows))
    assert stages == [
        ("cam", "configured"),
        ("cam", "best"),
        ("segmentation", "configured"),
        ("segmentation_crf", "configured"),
    ]
    text = format_table(tmp_path / "miou.csv")
    # Words begin below each other, numbers end.
    title, _, first, *_ = text.splitlines()
    assert first.index("pseudo") == title.index("labels")
    for column, number in (("mIoU configured", "20.0 @ 0.25"), ("mIoU best", "22.0 @ 0.31")):
        assert first.index(number) + len(number) == title.index(column) + len(column)
    lines = [line.split() for line in text.splitlines()]
    assert lines[0][-2:] == ["with", "CRF"]
    base = ["tiny", "cam", "train", "pseudo"]
    # Half of each, the mean over two classes.
    assert lines[2] == [*base, "20.0", "@", "0.25", "22.0", "@", "0.31", "-"]
    assert lines[3] == ["tiny", "segmentation", "val", "pseudo", "32.0", "-", "33.0"]
    assert len(lines) == 4


def test_the_same_scores_twice_are_refused(tmp_path):
    write_rows(tmp_path / "a.csv", table(None, "cam", 40))
    with pytest.raises(UserError, match="twice: tiny, cam"):
        collect(scores=[tmp_path / "a.csv", tmp_path / "a.csv"], output=tmp_path / "miou.csv")
    assert not (tmp_path / "miou.csv").exists()


def test_missing_and_foreign_tables_are_named(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        collect(scores=[tmp_path / "none.csv"], output=tmp_path / "miou.csv")
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    with pytest.raises(UserError, match="its columns are a, b"):
        format_table(tmp_path / "other.csv")
