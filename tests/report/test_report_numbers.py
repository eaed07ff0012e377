"""Numbers of the report at their limits: one mask, one pixel, one percent."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from wsss.data.index import ImageRecord, Index
from wsss.report.findings import Findings
from wsss.report.writing import _confusion, _summary

RECORD = ImageRecord("a", ("val",), ("cat",), 4, 4, "a.png")


def test_a_single_mask_is_a_mask(tmp_path: Path) -> None:
    index = Index(("cat",), [RECORD])
    assert "masks of 1 of them, for scoring." in _summary(index, {"a": "a.png"}, tmp_path)
    assert "there are no masks" in _summary(index, {}, tmp_path)


def test_shares_of_a_confusion_are_of_its_rows() -> None:
    counts = np.array([[989, 10, 1], [0, 1, 0], [0, 0, 0]])
    found = _confusion(Findings((), ("cat", "dog"), counts))
    assert found is not None
    (name, background), (_, single), (_, nothing) = found["rows"]
    assert name == "background"
    # A number for what rounds to a percent at least, and none for what does not.
    assert [text for _, text, _, _ in background] == ["99", "1", ""]
    assert [text for _, text, _, _ in single] == ["", "100", ""]
    assert [text for _, text, _, _ in nothing] == ["", "", ""]
    assert [strong for _, _, _, strong in background] == [True, False, False]
