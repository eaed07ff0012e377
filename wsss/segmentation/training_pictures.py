"""What TensorBoard shows of a segmentation training: crops, their labels, what is predicted."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from wsss.data.drawing import Picture, blend_labels
from wsss.data.loader import EpochDataset, Sample
from wsss.data.transforms import normalise
from wsss.models.deeplab import DeepLab
from wsss.training.pictures import TrainingPictures


def segmentation_pictures(network: DeepLab, images: EpochDataset) -> TrainingPictures:
    """Return the crops with their labels and with the network's prediction.

    Args:
        network: On its device.
        images: What is trained on, with `image`, `valid` and `target`.
    """

    def _labels_and_prediction(sample: Sample, crop: Picture) -> Iterator[tuple[str, Any]]:
        yield "labels", blend_labels(crop, sample["target"].numpy().astype(np.uint8))
        device = next(network.parameters()).device
        image, valid = sample["image"][None].to(device), sample["valid"][None].to(device)
        x = normalise(image, network.backbone.normalisation, valid)
        logits = network(x.contiguous(memory_format=torch.channels_last)).float()
        logits = F.interpolate(logits, size=crop.shape[:2], mode="bilinear", align_corners=False)
        label = logits[0].argmax(0).cpu().numpy().astype(np.uint8)
        yield "prediction", blend_labels(crop, label)

    return TrainingPictures(network, images, _labels_and_prediction)
