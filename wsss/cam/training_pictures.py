"""What TensorBoard shows of a CAM training: crops with the CAM of each of their tags."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F

from wsss.data.drawing import Picture, heat_map
from wsss.data.loader import EpochDataset, Sample
from wsss.data.transforms import normalise
from wsss.models.classifier import Classifier
from wsss.training.pictures import TrainingPictures

# Of a picture with many tags; a strip of all of them would be too wide to look at.
MOST_MAPS = 4


def cam_pictures(
    classifier: Classifier, images: EpochDataset, classes: Sequence[str]
) -> TrainingPictures:
    """Return the crops with a heat map of each tag, in one scale and max-min normalised.

    Args:
        classifier: On its device.
        images: What is trained on, with `image`, `valid` and `label`.
        classes: Their names.
    """

    def _heat_maps(sample: Sample, crop: Picture) -> Iterator[tuple[str, Any]]:
        tags = sample["label"].nonzero()[:MOST_MAPS, 0]
        if not len(tags):
            return
        # Imported here: it brings the map store along, whose library a training does without.
        from wsss.cam.inference import normalise_maps

        device = next(classifier.parameters()).device
        image, valid = sample["image"][None].to(device), sample["valid"][None].to(device)
        x = normalise(image, classifier.normalisation, valid)
        cam = classifier.inference_cam(x.contiguous(memory_format=torch.channels_last)).cam
        maps = normalise_maps(F.relu(cam[:, tags.to(device)].float()), classifier.map_epsilon)
        maps = F.interpolate(maps, size=crop.shape[:2], mode="bilinear", align_corners=False)
        for tag, strength in zip(tags.tolist(), maps[0].cpu().numpy(), strict=True):
            yield classes[tag], heat_map(crop, strength)

    return TrainingPictures(classifier, images, _heat_maps)
