"""OC-CSE's erasing loss (Kweon et al., ICCV 2021): what a CAM leaves visible may not be its class.

A frozen classifier, trained before ("ordinary classifier"), looks at the image without what the
map of one labelled class covers. It shall not find that class any more, or the map left some of
the object visible, and shall still find the others, or the map took some of them away.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from wsss.cam.losses import classification_loss, normalise_cam, resize, select_class
from wsss.cam.model_file import CLASSIFIER
from wsss.errors import UserError
from wsss.files import file_digest
from wsss.models.classifier import Classifier
from wsss.runtime.registry import chosen_modules


class Anchor(NamedTuple):
    """Another training's classifier, which stays as it is.

    Attributes:
        classifier: In eval mode.
        digest: Hash of the file it was read from.
        modules: Those with the code of its method.
    """

    classifier: Classifier
    digest: str
    modules: tuple[str, ...] = ()


def frozen_copy(classifier: Classifier) -> Classifier:
    """Return a copy of `classifier` that learns nothing and drops nothing."""
    return frozen(copy.deepcopy(classifier))


def frozen(classifier: Classifier) -> Classifier:
    """Make `classifier` learn and drop nothing, in place."""
    return classifier.eval().requires_grad_(False)


def anchored(
    classifier: Classifier, anchor: Anchor | None, device: torch.device
) -> tuple[Classifier, Mapping[str, nn.Module]]:
    """Return the frozen classifier beside a training, and what of it belongs in checkpoints.

    Args:
        classifier: The one that is trained.
        anchor: Another training's; None: a copy, whose weights the training sets.
        device: Where to compute.
    """
    if anchor is not None:
        return anchor.classifier.to(device, memory_format=torch.channels_last), {}  # type: ignore[call-overload]
    # What it is a copy of learns on: only a checkpoint can bring it back.
    copied = frozen_copy(classifier)
    return copied, {"anchor": copied}


def remaining_labels(label: Tensor, target: Tensor) -> Tensor:
    """Return the labels without each image's target: (B, C), int64 (B,) -> (B, C)."""
    return label.scatter(1, target[:, None], 0.0)


def erased(x: Tensor, cam: Tensor, target: Tensor) -> Tensor:
    """Return I * (1 - A_t): the images without what the target's map covers.

    Args:
        x: (B, 3, S, S), normalised, so that what is erased has the data set's mean colour.
        cam: Raw logits with gradient, (B, C, h, w).
        target: int64 (B,).

    Returns:
        (B, 3, S, S) in float32, with gradient to `cam`.
    """
    target_map = resize(normalise_cam(select_class(cam, target)), x.shape[-1])
    return x * (1 - target_map)


def erasing_loss(class_logits: Tensor, label: Tensor, target: Tensor) -> Tensor:
    """Return the mean binary cross-entropy of what the frozen classifier finds in erased images.

    Args:
        class_logits: (B, C), the frozen classifier's.
        label: (B, C), 0 or 1.
        target: int64 (B,), the class that was erased.
    """
    return classification_loss(class_logits, remaining_labels(label, target))


def read_anchor(path: Path, classes: Sequence[str]) -> Anchor:
    """Read the classifier of another training.

    Raises:
        UserError: It is missing, damaged, another kind of model, or knows other classes.
    """
    trained = CLASSIFIER.load(path)
    if trained.classes != tuple(classes):
        raise UserError(
            "the frozen classifier was trained for other classes than the index has",
            where=path,
            expected=", ".join(classes),
            fix="name a run on this data set in anchor_from",
        )
    return Anchor(frozen(trained.network), file_digest(path), chosen_modules(trained.settings))


def check_given(anchor: Anchor | None, source: str | None) -> None:
    """Check that the frozen classifier that settings name was given, and no other.

    Raises:
        UserError: It is missing, or not asked for.
    """
    if source is not None and anchor is None:
        raise UserError(
            f"anchor_from names the run '{source}', but its model was not given",
            where="--anchor-model",
            expected=f"the CAM model of run '{source}'",
            fix=f"--anchor-model results/{source}/cam/model.safetensors",
        )
    if source is None and anchor is not None:
        raise UserError(
            "a frozen classifier was given, and the settings name no run that it would be of",
            where="--anchor-model",
            fix="leave --anchor-model away, or set anchor_from",
        )
