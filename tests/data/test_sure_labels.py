"""Labels of scores, and which of them are sure."""

from __future__ import annotations

import numpy as np

from wsss.data.images import IGNORE
from wsss.data.sure_labels import sure_labels

# Background and classes 3 and 6, at five pixels.
SCORES = np.array(
    [[[0.5, 0.2, 0.3, 0.4, 0.1]], [[0.3, 0.6, 0.3, 0.2, 0.1]], [[0.2, 0.2, 0.4, 0.4, 0.3]]],
    np.float32,
)


def test_the_best_label_where_it_is_sure() -> None:
    assert sure_labels(SCORES, np.array([2, 5]), 0.0).tolist() == [[0, 3, 6, 0, 6]]
    # As sure as is asked for is sure.
    found = sure_labels(SCORES, np.array([2, 5]), float(np.float32(0.4))).tolist()
    assert found == [[0, 3, 6, 0, IGNORE]]
    assert sure_labels(SCORES, np.array([2, 5]), 0.45).tolist() == [[0, 3, *[IGNORE] * 3]]
