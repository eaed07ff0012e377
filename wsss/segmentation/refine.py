"""The dense CRF on predicted probabilities."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from wsss.data.crf import crf_from_probabilities
from wsss.data.crf_config import CrfConfig


def refine(
    image: npt.NDArray[np.uint8], probabilities: npt.NDArray[np.float32], settings: CrfConfig
) -> npt.NDArray[np.uint8]:
    """Return the (H, W) labels after the dense CRF.

    Args:
        image: (H, W, 3) uint8.
        probabilities: (n_labels, H, W) float32.
        settings: The CRF's settings.
    """
    marginals = crf_from_probabilities(image, probabilities, settings)
    return np.asarray(marginals.argmax(axis=0), dtype=np.uint8)
