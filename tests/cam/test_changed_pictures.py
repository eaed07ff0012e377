"""A picture that was changed after the index: no maps are made of it, and nothing is learnt."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from wsss.cam.config import ExportConfig
from wsss.cam.export import ClassifierSource
from wsss.cam.methods.clip_es import ClipEsSource
from wsss.cam.training import ClassificationImages
from wsss.data.index import ImageRecord, Index
from wsss.errors import UserError

RECORD = ImageRecord("a", ("train",), ("cat",), 8, 6, "a.png")


def _export(root: Path) -> None:
    unused: Any = SimpleNamespace(views=None)
    ClassifierSource(unused, ExportConfig(), {}, "").prepare(RECORD, root)


def _clip(root: Path) -> None:
    unused: Any = None
    ClipEsSource(unused, unused, ExportConfig()).prepare(RECORD, root)


def _training(root: Path) -> None:
    unused: Any = None
    images = ClassificationImages(Index(("cat",), (RECORD,)), root, unused)
    images.load(0, np.random.default_rng(0))


@pytest.mark.parametrize("stage", [_export, _clip, _training])
def test_a_picture_of_another_size_is_refused(tmp_path: Path, stage: Any) -> None:
    Image.new("RGB", (6, 8)).save(tmp_path / "a.png")
    with pytest.raises(UserError, match="this picture is 6 x 8 px") as caught:
        stage(tmp_path)
    assert caught.value.expected == "8 x 6 px, as the index says"
