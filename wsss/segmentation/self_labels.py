"""Labels of the training images by a trained model, for another round (the stage's entry point).

The model is asked only what the tags leave open: which of a picture's own classes a pixel shows.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from wsss.data.crf import crf_from_probabilities
from wsss.data.images import write_named
from wsss.data.index import TRAINING_SETS, ImageRecord, read_index
from wsss.data.sure_labels import sure_labels
from wsss.errors import UserError
from wsss.files import atomic_directory
from wsss.maps.shards import WHOLE, Shard
from wsss.runtime.compute import InferenceCompute
from wsss.runtime.lazy import Made
from wsss.segmentation.config import SelfLabelsConfig
from wsss.segmentation.prediction import Job, check_classes, predict_jobs


def tag_probabilities(
    probabilities: npt.NDArray[np.float32], background_weight: float
) -> npt.NDArray[np.float32]:
    """Return what each label has of the probability that a picture's labels have together.

    Args:
        probabilities: (1 + K, H, W) float32 of background and the K tagged classes, as predicted
            among all labels.
        background_weight: Factor on background's.

    Returns:
        (1 + K, H, W) float32 that sum to 1 over the labels; all 0 where they had nothing.
    """
    weights = np.ones((len(probabilities), 1, 1), dtype=np.float32)
    weights[0] = background_weight
    weighted = probabilities * weights
    total = weighted.sum(axis=0, keepdims=True)
    shares: npt.NDArray[np.float32] = weighted / np.maximum(total, np.finfo(np.float32).tiny)
    return shares


@dataclass(frozen=True)
class _TagLabels:
    """Writes an image's label PNG from the probabilities of background and its tags."""

    config: SelfLabelsConfig
    folder: Path

    def __call__(self, job: Job, probabilities: npt.NDArray[np.float32]) -> None:
        config = self.config
        shares = tag_probabilities(probabilities, config.background_weight)
        # With background alone there is nothing to refine.
        if config.crf and len(shares) > 1:
            shares = crf_from_probabilities(job.picture, shares, config.crf_settings)
        assert job.labels is not None
        classes = np.array(job.labels[1:], dtype=np.int64) - 1
        write_named(self.folder, job.name, sure_labels(shares, classes, config.confidence))


def make_self_labels(
    *,
    config: SelfLabelsConfig,
    model: Path,
    index: Path,
    root: Path,
    output: Path,
    compute: InferenceCompute,
    shard: Shard = WHOLE,
) -> None:
    """Write a label PNG for every training image: background, its tags, or 255 where unsure.

    Args:
        config: Scales, mirror, CRF, confidence.
        model: Segmentation model file, of another run.
        index: `index.csv`; of the images their tags, too.
        root: Data root.
        output: Folder of PNGs to write (0 background, class + 1, 255 unsure).
        compute: Device, threads, workers.
        shard: The part of those images to label.

    Raises:
        UserError: There are no training images, or the model's classes are not the index's.
    """
    known = read_index(index)
    # Those without tags, from which nothing is learnt, are all background when labels are scored.
    training = known.records.take(known.records.in_sets(TRAINING_SETS))
    if not training:
        raise UserError("the index has no training images", where=index)
    check_classes(model, known.classes)

    def job(record: ImageRecord) -> Job:
        labels = (0, *(position + 1 for position in known.class_indices(record)))
        return Job(root / record.path, record.name, labels, (record.width, record.height))

    jobs = Made(job, shard.of(training))
    with atomic_directory(output) as folder:
        finish = _TagLabels(config, folder)
        # However few its images, a shard gives what the whole set gives.
        predict_jobs(model, jobs, finish, config, compute, few_share_threads=False)
