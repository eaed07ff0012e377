"""Maps that do not belong to the masks: the image and the file are named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from wsss.data.images import write_label
from wsss.data.index import ImageRecord, Index, write_index, write_masks
from wsss.errors import UserError
from wsss.evaluation.config import EvaluationConfig
from wsss.evaluation.scoring import score_maps
from wsss.maps.map_store import MapStoreWriter


def test_maps_of_another_size_than_the_masks(tmp_path: Path) -> None:
    record = ImageRecord("a", ("val",), ("cat",), 12, 8, "a.png")
    write_index(Index(("cat",), (record,)), tmp_path / "index.csv")
    write_label(tmp_path / "a_mask.png", np.zeros((8, 12), np.uint8))
    write_masks({"a": "a_mask.png"}, tmp_path / "masks.csv")
    with MapStoreWriter(tmp_path / "cams.h5", classes=("cat",), attributes={}) as store:
        store.add("a", (0,), np.ones((1, 4, 3), np.float32), (16, 12))
    with pytest.raises(
        UserError, match=r"image a: maps are \(1, 16, 12\), ground truth \(8, 12\)"
    ) as caught:
        score_maps(
            config=EvaluationConfig(),
            maps=tmp_path / "cams.h5",
            index=tmp_path / "index.csv",
            masks=tmp_path / "masks.csv",
            root=tmp_path,
            output=tmp_path / "cam.csv",
            curve=tmp_path / "curve.csv",
            plot=tmp_path / "curve.png",
            run="mine",
            stage="cam",
            split="val",
            background=0.3,
        )
    assert caught.value.where == str(tmp_path / "cams.h5")
    assert not (tmp_path / "cam.csv").exists()
