"""`cls_labels.npy` whose vectors are of something else than numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wsss.data.formats.cls_labels import read_cls_labels
from wsss.errors import UserError


@pytest.mark.parametrize("code", ["S1", "U1", "M8[s]", "m8[s]", "c8", "V1"])
def test_other_types_are_refused(tmp_path: Path, code: str) -> None:
    vector: Any = np.zeros(20, np.dtype(code))
    np.save(tmp_path / "x.npy", np.array({"a": vector}, dtype=object), allow_pickle=True)
    with pytest.raises(UserError, match="an array of type") as caught:
        read_cls_labels(tmp_path / "x.npy", 20)
    assert caught.value.where == str(tmp_path / "x.npy")
