"""Exports of many labels: written one after the other, as the same text as all at once."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
from memory_helpers import peak_of

from wsss.data.exports.coco import write_coco
from wsss.data.exports.label_studio import write_label_studio
from wsss.data.exports.labels import LabelMaps
from wsss.data.images import write_label
from wsss.data.records import ImageRecord, Records

WRITERS = {"coco": write_coco, "label-studio": write_label_studio}


class _OneFile(Mapping[str, Path]):
    """The same label map for every image."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __getitem__(self, name: str) -> Path:
        return self._path

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0


def _labels(folder: Path, count: int) -> LabelMaps:
    label = np.zeros((6, 8), np.uint8)
    label[1:3, 2:], label[4:, :5], label[0] = 1, 2, 255
    write_label(folder / "label.png", label)
    records = Records(
        ImageRecord(f"p{number:04}", ("train",), ("öl",), 8, 6, f"bilder/p{number:04}.png")
        for number in range(count)
    )
    return LabelMaps(("öl", "cat"), records, _OneFile(folder / "label.png"), "run labels")


@pytest.mark.filterwarnings("ignore:__array__ impl:DeprecationWarning")  # pycocotools 2.0.11
@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("count", [0, 1, 3])
def test_the_text_is_that_of_the_whole_value(tmp_path: Path, name: str, count: int) -> None:
    WRITERS[name](_labels(tmp_path, count), tmp_path / "out.json")
    text = (tmp_path / "out.json").read_text(encoding="utf-8")
    value = json.loads(text)
    assert len(value["images"] if name == "coco" else value) == count
    assert text == json.dumps(value, ensure_ascii=False) + "\n"


@pytest.mark.filterwarnings("ignore:__array__ impl:DeprecationWarning")
@pytest.mark.parametrize("name", WRITERS)
def test_no_object_of_an_image_is_kept(tmp_path: Path, name: str) -> None:
    labels = _labels(tmp_path, 300)
    WRITERS[name](labels, tmp_path / "before.json")
    _, _, most = peak_of(lambda: WRITERS[name](labels, tmp_path / "out.json"))
    assert (tmp_path / "out.json").read_bytes() == (tmp_path / "before.json").read_bytes()
    assert most < 5e5
