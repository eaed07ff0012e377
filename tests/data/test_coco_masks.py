"""Drawing COCO's masks: once, by one process, whatever was left by one that was killed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from wsss.data.formats import coco_masks
from wsss.data.formats.coco_masks import draw_once
from wsss.errors import UserError
from wsss.runtime.locks import lock_file, output_lock


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """One picture a set, with one box of class 1."""
    (tmp_path / "annotations").mkdir()
    for name in ("train2014", "val2014"):
        (tmp_path / name).mkdir()
        Image.new("RGB", (8, 6)).save(tmp_path / name / "a.jpg")
        values = {
            "images": [{"id": 1, "file_name": "a.jpg", "width": 8, "height": 6}],
            "categories": [{"id": 1, "name": "brush"}],
            "annotations": [
                {
                    **{"id": 1, "image_id": 1, "category_id": 1, "area": 4, "iscrowd": 0},
                    "segmentation": [[1, 1, 4, 1, 4, 4, 1, 4]],
                    "bbox": [1, 1, 3, 3],
                }
            ],
        }
        (tmp_path / "annotations" / f"instances_{name}.json").write_text(json.dumps(values))
    return tmp_path


def test_what_a_killed_drawing_left_goes_and_the_folder_is_locked_meanwhile(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = root / ".masks.node17-0123abcd-99.tmp"
    left.mkdir()
    (left / "half.png").write_text("half")
    draw = coco_masks.rasterise_masks
    held = []

    def drawing(*arguments: object, **options: object) -> None:
        held.append((lock_file(root / "masks").exists(), left.exists()))
        draw(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(coco_masks, "rasterise_masks", drawing)
    assert draw_once(root=root, workers=1) is True
    assert held == [(True, False)]
    assert not lock_file(root / "masks").exists()
    assert draw_once(root=root, workers=1) is False


def test_a_record_of_what_was_drawn_is_written_where_it_is_wanted(root: Path) -> None:
    for number, drawn in enumerate((True, False)):
        output = root / f"record{number}.json"
        assert draw_once(root=root, output=output, workers=1) is drawn
        assert output.read_text() == (root / "masks" / "categories.json").read_text()


def test_another_process_that_draws_is_waited_for(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import multiprocessing

    monkeypatch.setattr(coco_masks, "_WAIT_S", 0.3)
    context = multiprocessing.get_context("fork")
    ready, end = context.Event(), context.Event()

    def hold() -> None:
        with output_lock(root / "masks", "coco-masks"):
            ready.set()
            end.wait(60)

    other = context.Process(target=hold)
    other.start()
    try:
        assert ready.wait(60)
        with pytest.raises(UserError, match="is writing this output"):
            draw_once(root=root, workers=1)
    finally:
        end.set()
        other.join()
    assert draw_once(root=root, workers=1) is True
