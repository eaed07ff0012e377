"""From walked CAMs to scores and labels of one image.

Apart from the stage, so that a process of the pool which only does this, as beside a GPU, starts
without loading any network's code.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wsss.data.images import write_named
from wsss.data.index import ImageRecord
from wsss.irn.config import PseudoLabelsConfig
from wsss.irn.inputs import label_values
from wsss.maps.map_store import upsample

UPSAMPLING = "times4"


@dataclass(frozen=True)
class WalkJob:
    """What is known of an image before its labels.

    Attributes:
        record: The image.
        class_indices: (K,) int64 positions of its tagged classes.
        maps: (K, h, w) float32 CAMs, before the walk or after it.
    """

    record: ImageRecord
    class_indices: np.ndarray
    maps: np.ndarray


def walked_scores(walked: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Normalise walked maps by the largest value that any class reaches in the image.

    Args:
        walked: (K, h, w) float32 at stride 4.
        size: (H, W) of the image.

    Returns:
        The maps (K, h, w) float32 divided by that value, and the scores (K, H, W) float32 they
        become: 4x bilinear, cropped, the largest 1 (all 0 where the walk left nothing).
    """
    scores = upsample(walked, size, UPSAMPLING)
    largest = max(float(scores.max(initial=0.0)), float(np.finfo(np.float32).tiny))
    return walked / np.float32(largest), scores / np.float32(largest)


@dataclass(frozen=True)
class Finisher:
    """Scores and label PNG of one image from its walked maps; picklable, for the process pool."""

    config: PseudoLabelsConfig
    folder: Path

    def __call__(self, job: WalkJob) -> tuple[ImageRecord, np.ndarray, np.ndarray]:
        """Write the label PNG; return the image, its classes and its normalised walked maps."""
        normalised, scores = walked_scores(job.maps, (job.record.height, job.record.width))
        labels = label_values(scores, self.config.score_threshold, job.class_indices)
        write_named(self.folder, job.record.name, labels)
        return job.record, job.class_indices, normalised
