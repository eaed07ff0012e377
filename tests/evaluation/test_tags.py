"""Classes of predictions against tags, beside counts made with Python's sets."""

from __future__ import annotations

import numpy as np
import pytest

from wsss.data.images import write_label
from wsss.data.index import ImageRecord, Index, write_index
from wsss.errors import UserError
from wsss.evaluation.config import EvaluationConfig
from wsss.evaluation.tags import format_tags, read_tags, score_tags, tag_scores, together

CLASSES = ("ant", "bee", "cat")


@pytest.fixture
def made(tmp_path):
    """Five tagged pictures of 10 x 10 px and one without tags, with predictions."""
    tags = [("ant",), ("ant", "bee"), ("bee",), ("ant",), ("bee",), ()]
    # label -> pixels; the 3 pixels of `cat` are below the share that counts here.
    found = [{1: 20}, {1: 50, 3: 3}, {1: 10, 2: 30, 255: 5}, {}, {2: 40}, {3: 90}]
    (tmp_path / "labels").mkdir()
    records = []
    for i, (names, pixels) in enumerate(zip(tags, found, strict=True)):
        records.append(ImageRecord(f"p{i}", ("val",), names, 10, 10, f"p{i}.png"))
        flat = np.zeros(100, np.uint8)
        flat[: sum(pixels.values())] = np.repeat(list(pixels), list(pixels.values()))
        write_label(tmp_path / "labels" / f"p{i}.png", flat.reshape(10, 10))
    write_index(Index(CLASSES, tuple(records)), tmp_path / "index.csv")
    return tmp_path


def arguments(folder, **changes):
    common = {
        "config": EvaluationConfig(tag_share=0.05),
        "labels": folder / "labels",
        "index": folder / "index.csv",
        "output": folder / "tags.csv",
        "run": "tiny",
        "stage": "segmentation",
        "split": "val",
    }
    return common | changes


@pytest.mark.setting("evaluation.tag_share")
def test_scores_equal_a_count_by_hand(made, capsys):
    score_tags(**arguments(made))
    rows = {row["class"]: row for row in read_tags(made / "tags.csv")}
    # ant: tagged 0 1 3, found 0 1 2; bee: tagged 1 2 4, found 2 4; cat: never.
    assert [rows["ant"][key] for key in ("tagged", "predicted", "correct")] == ["3", "3", "2"]
    assert [rows["bee"][key] for key in ("tagged", "predicted", "correct")] == ["3", "2", "2"]
    assert [rows["cat"][key] for key in ("precision", "recall", "f1")] == ["", "", ""]
    assert float(rows["bee"]["precision"]) == 1.0
    assert float(rows["bee"]["recall"]) == pytest.approx(2 / 3, abs=1e-6)
    assert float(rows["bee"]["f1"]) == pytest.approx(0.8, abs=1e-6)
    assert float(rows["ant"]["area"]) == pytest.approx(80 / 500)
    assert float(rows["mean"]["precision"]) == pytest.approx((2 / 3 + 1) / 2, abs=1e-6)
    assert float(rows["all"]["recall"]) == pytest.approx(4 / 6, abs=1e-6)
    assert (rows["all"]["images"], rows["all"]["empty"]) == ("5", "1")
    printed = capsys.readouterr().out
    assert "1 of 6 pictures have no tags and are left out" in printed
    assert "in 1 it finds none" in printed and printed.strip().endswith(
        format_tags(made / "tags.csv").splitlines()[-1]
    )


def test_parts_together_are_the_whole():
    rng = np.random.default_rng(0)
    tags = rng.random((9, 3)) < 0.5
    shares = rng.random((9, 3)) * (rng.random((9, 3)) < 0.4) / 3
    pixels = rng.integers(50, 200, 9)
    whole = tag_scores(tags, shares, pixels, min_share=0.1)
    assert whole.images == 9 and 0 < whole.empty < 9
    parts = [
        (tag_scores(tags[part], shares[part], pixels[part], min_share=0.1), int(pixels[part].sum()))
        for part in (slice(0, 2), slice(2, 3), slice(3, 9))
    ]
    found = together(parts)
    assert (found.images, found.empty) == (whole.images, whole.empty)
    for name in ("tagged", "predicted", "correct"):
        np.testing.assert_array_equal(getattr(found, name), getattr(whole, name))
    np.testing.assert_allclose(found.area, whole.area, rtol=1e-12)


def test_from_the_first_pixel_on_if_so_set(made):
    score_tags(**arguments(made, config=EvaluationConfig(tag_share=0.0)))
    rows = {row["class"]: row for row in read_tags(made / "tags.csv")}
    assert (rows["cat"]["predicted"], rows["cat"]["correct"]) == ("1", "0")


def test_missing_predictions_are_named(made):
    (made / "labels" / "p3.png").unlink()
    with pytest.raises(UserError, match=r"1 of 5 .* no prediction: p3"):
        score_tags(**arguments(made))
    assert not (made / "tags.csv").exists()


def test_without_tags_there_is_nothing_to_compare_with(made, capsys):
    record = ImageRecord("p5", ("val",), (), 10, 10, "p5.png")
    write_index(Index(CLASSES, (record,)), made / "index.csv")
    score_tags(**arguments(made))
    assert read_tags(made / "tags.csv") == []
    assert "no picture of this split has tags" in capsys.readouterr().out
