"""From scores of background and a few classes to a label map that admits what it does not know."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from wsss.data.images import IGNORE


def sure_labels(
    scores: npt.NDArray[np.float32], class_indices: npt.NDArray[np.integer], confidence: float
) -> npt.NDArray[np.uint8]:
    """Return each pixel's best label, 255 where even that one's score is below `confidence`.

    Args:
        scores: (1 + K, H, W) float32, background first; it wins ties.
        class_indices: (K,) positions in the class list; label = position + 1.
        confidence: 0..1; 0: every pixel gets its label.

    Returns:
        (H, W) uint8.
    """
    values = np.concatenate([[0], np.asarray(class_indices) + 1]).astype(np.uint8)
    labels: npt.NDArray[np.uint8] = values[scores.argmax(axis=0)]
    labels[scores.max(axis=0) < np.float32(confidence)] = IGNORE
    return labels
