"""What is said of a data set: its classes as far as a line holds them, its masks by set."""

from __future__ import annotations

from pathlib import Path

from wsss.data.description import SHOWN_CLASSES, describe
from wsss.data.formats.folder import FolderSettings
from wsss.data.index import ImageRecord, Index

RECORDS = [
    ImageRecord("a", ("train",), ("c0",), 4, 3, "a.png"),
    ImageRecord("b", ("train",), ("c0", "c1"), 4, 3, "b.png"),
    ImageRecord("c", ("val",), (), 4, 3, "c.png"),
]


def _lines(count: int, masks: dict[str, str] | None) -> dict[str, str]:
    index = Index(tuple(f"c{number}" for number in range(count)), RECORDS)
    text = describe(FolderSettings(), Path("data"), index, masks)
    return dict(line.split(":", 1) for line in text.replace(": ", ":").splitlines())


def test_masks_are_counted_by_set() -> None:
    lines = {key: text.strip() for key, text in _lines(2, {"a": "a.png", "c": "c.png"}).items()}
    assert lines == {
        "layout": "folder, in data",
        "pictures": "3",
        "classes": "2 (c0 2, c1 1)",
        "sets": "train 2 (1 with a mask), val 1 (1 with a mask)",
        "untagged": "1, which are not trained on",
        "masks": "2",
    }
    assert _lines(2, {})["sets"].strip() == "train 2, val 1"
    assert _lines(2, {})["masks"].strip().startswith("none")
    assert _lines(2, None)["masks"].strip() == "not drawn yet"


def test_many_classes_are_counted() -> None:
    assert SHOWN_CLASSES == 40
    assert _lines(40, None)["classes"].endswith(", c39 0)")
    assert _lines(42, None)["classes"].endswith(", c39 0, and 2 more)")
