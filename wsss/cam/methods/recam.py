"""ReCAM (Chen et al., CVPR 2022): the plain classifier, then a second one in softmax (`recam`).

Class Re-Activation Maps for Weakly-Supervised Semantic Segmentation. Binary cross-entropy lets a
pixel speak for several classes at once; softmax cross-entropy, on the feature that a single class's
CAM covers, makes them compete.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import SGD

from wsss.cam.losses import classification_loss
from wsss.cam.methods.phases import restarted
from wsss.cam.methods.plain import ClassifierTask, Family, classification_terms, sgd
from wsss.cam.methods.recam_config import ReCamSettings
from wsss.data.transforms import normalise
from wsss.models.backbones import Backbone, build_backbone, freeze_batchnorm
from wsss.models.classifier import InferenceCam
from wsss.models.reconstructor import CamClassifier, CamHead, Preset, class_logits_of
from wsss.runtime.compute import autocast
from wsss.training.step import Part, Phase, StepContext

# What a CAM's maximum is enlarged by before it divides (ReCAM's public code).
EPSILON = 1e-5


class ReCamClassifier(CamClassifier):
    """A CAM classifier with a second layer of class weights beside its own.

    Its exported maps are the features times the products of both weights.

    Attributes:
        second: From a pooled feature to the logits of all classes, which compete in softmax.
    """

    # What the class weights of LPCAM would be is open.
    gives_features = False

    def __init__(self, backbone: Backbone, n_classes: int, preset: Preset) -> None:
        super().__init__(backbone, n_classes, preset)
        # After all else, so that what the plain classifier draws stays what it is.
        self.second = nn.Linear(self.class_weights.shape[1], n_classes, bias=False)

    def export_head(self) -> CamHead:
        """Return the head whose output is the exported CAM (as ReCAM's public code)."""
        head = copy.deepcopy(self.head)
        with torch.no_grad():
            head.classes.weight.mul_(self.second.weight[:, :, None, None])
        return head

    def inference_cam(self, x: Tensor, *, attention: bool = False) -> InferenceCam:
        """Return the CAMs to export, (B, C, h, w), of normalised images (B, 3, H, W)."""
        if attention:
            return super().inference_cam(x, attention=True)
        return InferenceCam(self.export_head()(self.backbone(x)[-1]), None)


def class_features(cam: Tensor, features: Tensor) -> Tensor:
    """Pool the features that each class's CAM covers (as ReCAM's public code).

    Args:
        cam: Raw, (B, C, h, w); its normalised form carries gradient.
        features: (B, D, h, w).

    Returns:
        (B, C, D) float32: mean over the pixels of the CAM, without what is negative and divided by
        its maximum, times the feature.
    """
    positive = F.relu(cam.float())
    masks = positive / (positive.amax(dim=(2, 3), keepdim=True) + EPSILON)
    pixels = masks.shape[2] * masks.shape[3]
    return torch.einsum("bchw,bdhw->bcd", masks, features.float()) / pixels


def softmax_loss(logits: Tensor, label: Tensor) -> Tensor:
    """Mean over images of the mean cross-entropy over an image's classes (as ReCAM's public code).

    Args:
        logits: (B, C, C) float: at [b, k] those of all classes, for the feature of class k.
        label: (B, C), 0 or 1; each image has a class.

    Returns:
        Scalar.
    """
    of_own_class = logits.log_softmax(dim=2).diagonal(dim1=1, dim2=2)
    return (-(of_own_class * label).sum(dim=1) / label.sum(dim=1)).mean()


def build_classifier(
    config: ReCamSettings,
    n_classes: int,
    *,
    weights_file: Path | None = None,
    transformer_weights_file: Path | None = None,
) -> ReCamClassifier:
    """Build the classifier with its initial weights, BatchNorm frozen where configured."""
    backbone = build_backbone(config.backbone, weights_file)
    classifier = ReCamClassifier(backbone, n_classes, config.head)
    return freeze_batchnorm(classifier) if config.freeze_batchnorm else classifier


def _sgd(config: ReCamSettings, classifier: ReCamClassifier) -> SGD:
    heads = (classifier.head, classifier.second)
    return sgd(config, classifier, [(head, config.head_lr_factor) for head in heads])


class ReCamMethod(ClassifierTask[ReCamSettings]):
    """Train a classifier on image labels; then, slowly, along with a second one."""

    classifier: ReCamClassifier

    def __init__(
        self, config: ReCamSettings, n_classes: int, *, device: torch.device, **weights: Path | None
    ) -> None:
        family = Family(build_classifier, _sgd)
        super().__init__(config, n_classes, device=device, family=family, **weights)
        factor = restarted(
            config.epochs,
            alone=config.recam.classifier_epochs,
            idle=0,
            joint_factor=config.recam.joint_lr_factor,
            lr_power=config.lr_power,
        )
        self.schedules = {"classifier": factor}

    def phases(self, batch: Mapping[str, Any], context: StepContext) -> Iterator[Phase[Part]]:
        """Yield the classifier's phase, of a batch of `image`, `valid` and `label`."""
        alone = context.epoch < self.config.recam.classifier_epochs
        yield Phase("classifier", context.parts(batch), self._plain if alone else self._joint)

    def _plain(self, part: Part, _: Tensor | None) -> Mapping[str, Tensor]:
        return classification_terms(self.classifier, self.config, self.device, part)

    def _joint(self, part: Part, _: Tensor | None) -> Mapping[str, Tensor]:
        batch, network = part.batch, self.classifier
        x = normalise(batch["image"], network.normalisation, batch["valid"])
        with autocast(self.device, self.config.precision):
            features = network.features(x.contiguous(memory_format=torch.channels_last))
            cam = network.head.classes(features)
        label = batch["label"]
        smoothing = self.config.label_smoothing
        classification = part.share * classification_loss(class_logits_of(cam), label, smoothing)
        pooled = class_features(cam, features)
        softmax = part.share * softmax_loss(network.second(pooled), label)
        return {
            "total": classification + self.config.recam.weight * softmax,
            "classification": classification,
            "softmax": softmax,
        }
