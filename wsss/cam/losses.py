"""ACR's maps, draws and losses as pure functions (ACR, CVPR 2023).

Everything here is float32 (or float64 when it gets float64), whatever the networks compute in.
"Target" is one labelled class an image, "non-target" the rest of the image.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from wsss.cam.methods.acr_config import AcrWeights
from wsss.errors import UserError
from wsss.models.resize import resize_bilinear

# Offset and denominator guard of the CAM's max-min normalisation.
NORMALISATION_EPSILON = 1e-5
# A non-target segment with no more mass than this many pixels says nothing about the image.
SMALLEST_SEGMENT_PX = 50.0


class RuTerms(NamedTuple):
    """The reconstructor update's loss and its four terms, unweighted; scalars.

    `target` is the error on the non-target side of the reconstruction from the target segment,
    `nontarget` the converse.
    """

    total: Tensor
    classification: Tensor
    full: Tensor
    target: Tensor
    nontarget: Tensor


class CuTerms(NamedTuple):
    """The classifier update's loss and its three terms, unweighted, signs not applied; scalars."""

    total: Tensor
    classification: Tensor
    target: Tensor
    nontarget: Tensor


def at_least_float32(x: Tensor) -> Tensor:
    """Return `x` in float32, or as it is in float64."""
    return x if x.dtype == torch.float64 else x.float()


def resize(x: Tensor, side_px: int) -> Tensor:
    """Resize (B, C, h, w) bilinearly, align_corners off, to a square; a no-op at that size."""
    return resize_bilinear(x, (side_px, side_px))


def classification_loss(
    class_logits: Tensor, label: Tensor, label_smoothing: float = 0.0
) -> Tensor:
    """Return the mean binary cross-entropy over (B, C) class logits and 0/1 labels.

    Logits (B, S, C) are S scores for the same labels; the losses of the scores are added up.

    Args:
        class_logits: (B, C) or (B, S, C).
        label: (B, C), 0 or 1.
        label_smoothing: e, with which a label y counts as (1 - e) y + e / 2 (Szegedy et al.,
            CVPR 2016, each class being a choice of two).
    """
    logits = at_least_float32(class_logits)
    if logits.dim() == 3:
        losses = [classification_loss(one, label, label_smoothing) for one in logits.unbind(1)]
        return torch.stack(losses).sum()
    aim = label.to(logits.dtype)
    if label_smoothing:
        aim = (1 - label_smoothing) * aim + label_smoothing / 2
    return F.binary_cross_entropy_with_logits(logits, aim)


def draw_targets(label: Tensor, uniform: Tensor) -> Tensor:
    """Choose one of each image's labelled classes, all with the same probability.

    Args:
        label: float (B, C), 0 or 1, at least one 1 in each row.
        uniform: float (B,) in [0, 1).

    Returns:
        int64 (B,), the chosen classes.

    Raises:
        UserError: An image has no label.
    """
    count = label.sum(dim=1)
    if bool((count < 1).any()):
        raise UserError(
            "an image without any label is in the training batch",
            expected="at least one labelled class: there is no target to draw otherwise",
            fix="leave images without tags out of CAM training",
        )
    # The last labelled class at most: in float32 a uniform just below 1 can round up.
    chosen = torch.minimum((uniform * count).floor(), count - 1)
    # Counted in integers: CUDA has no deterministic cumulative sum of floats.
    return (label.long().cumsum(dim=1) > chosen[:, None]).to(torch.uint8).argmax(dim=1)


def remnant_grid(batch: int, cells: int, q: float, generator: torch.Generator) -> Tensor:
    """Draw the binary grids g of stochastic remnant feeding.

    Args:
        batch: Images.
        cells: Cells along a side.
        q: Probability of a 1: that cell feeds the other side's remnants.
        generator: CPU generator.

    Returns:
        float32 (batch, 1, cells, cells), on the CPU.
    """
    return (torch.rand(batch, 1, cells, cells, generator=generator) < q).float()


def resize_grid(grid: Tensor, side_px: int) -> Tensor:
    """Resize (B, 1, s, s) grids to a square of `side_px`, nearest."""
    return F.interpolate(grid, size=(side_px, side_px), mode="nearest")


def select_class(cam: Tensor, target: Tensor) -> Tensor:
    """Return each image's map of its class `target`: (B, C, h, w), (B,) -> (B, 1, h, w)."""
    return cam[torch.arange(cam.shape[0], device=cam.device), target][:, None]


def normalise_cam(cam: Tensor) -> Tensor:
    """Max-min normalise CAM logits per image and class; min and max carry gradient.

    Args:
        cam: float (B, C, h, w), raw logits.

    Returns:
        float (B, C, h, w) in [0, 1).
    """
    a = F.relu(at_least_float32(cam))
    low = a.amin(dim=(2, 3), keepdim=True)
    high = a.amax(dim=(2, 3), keepdim=True)
    return F.relu(a - low - NORMALISATION_EPSILON) / (high - low + NORMALISATION_EPSILON)


def segments(target_map: Tensor, grid: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return the target and non-target segments, with remnants of the other side.

    Args:
        target_map: A_t, float (B, 1, H, W) in [0, 1].
        grid: g at that size, 0 or 1; None feeds no remnants.

    Returns:
        S_t = A_t + (1 - A_t) g and S_nt = (1 - A_t) + A_t g, each (B, 1, H, W).
    """
    nontarget_map = 1 - target_map
    if grid is None:
        return target_map, nontarget_map
    return target_map + nontarget_map * grid, nontarget_map + target_map * grid


def is_predicted(cam: Tensor, target: Tensor, side_px: int) -> Tensor:
    """Return where the target is the argmax over all classes of the resized CAM logits.

    Args:
        cam: float (B, C, h, w), raw logits.
        target: int64 (B,).
        side_px: Side to resize to.

    Returns:
        bool (B, 1, side_px, side_px).
    """
    winner = resize(at_least_float32(cam.detach()), side_px).argmax(dim=1, keepdim=True)
    return winner == target.view(-1, 1, 1, 1)


def _masked_error(mask: Tensor, reconstruction: Tensor, image: Tensor) -> Tensor:
    """Return each image's mean of |mask * (reconstruction - image)|, (B,)."""
    return (mask * (at_least_float32(reconstruction) - image)).abs().mean(dim=(1, 2, 3))


def is_kept(target_map: Tensor, grid: Tensor | None) -> Tensor:
    """Return which images' S_nt has enough mass to be reconstructed from, bool (B,)."""
    return segments(target_map, grid)[1].sum(dim=(1, 2, 3)) > SMALLEST_SEGMENT_PX


def ru_loss(
    class_logits: Tensor,
    label: Tensor,
    image: Tensor,
    reconstructions: tuple[Tensor, Tensor, Tensor],
    target_map: Tensor,
    grid: Tensor | None,
    weights: AcrWeights,
    *,
    share: float = 1.0,
    kept_total: Tensor | None = None,
) -> RuTerms:
    """Return the loss of the reconstructor's update.

    Args:
        class_logits: (B, C), the encoder's.
        label: (B, C), 0 or 1.
        image: (B, 3, H, W), ImageNet-normalised.
        reconstructions: From the whole feature, from S_t, from S_nt; each (B, 3, H, W).
        target_map: A_t without gradient, (B, 1, H, W).
        grid: g, (B, 1, H, W); None: no remnants were fed.
        weights: Weights of the terms.
        share: What part of a batch these images are: its terms are the sums of all parts'.
        kept_total: How many images of the whole batch `is_kept` is true for; None: these are it.

    Returns:
        Total and terms. An image whose S_nt has a mass of 50 pixels or fewer is left out of the
        non-target term and of its mean.
    """
    full, from_target, from_nontarget = reconstructions
    # What was fed as remnant is no secret: only the cells that were erased are scored.
    erased = 1.0 if grid is None else 1 - grid
    classification = share * classification_loss(class_logits, label)
    full_error = share * (at_least_float32(full) - image).abs().mean()
    target_error = share * _masked_error((1 - target_map) * erased, from_target, image).mean()
    kept = is_kept(target_map, grid)
    count = kept.sum() if kept_total is None else kept_total
    # where, not a product: an image left out may not pass on a reconstruction that is not finite.
    errors = _masked_error(target_map * erased, from_nontarget, image)
    nontarget_error = torch.where(kept, errors, 0.0).sum() / count.clamp(min=1)
    total = (
        weights.ru_class * classification
        + weights.ru_full * full_error
        + weights.ru_target * target_error
        + weights.ru_nontarget * nontarget_error
    )
    return RuTerms(total, classification, full_error, target_error, nontarget_error)


def cu_loss(
    class_logits: Tensor,
    label: Tensor,
    image: Tensor,
    reconstructions: tuple[Tensor, Tensor],
    target_map: Tensor,
    predicted: Tensor,
    weights: AcrWeights,
    *,
    share: float = 1.0,
    label_smoothing: float = 0.0,
) -> CuTerms:
    """Return the loss of the classifier's update: classify, and leave nothing to reconstruct from.

    Args:
        class_logits: (B, C), the classifier's.
        label: (B, C), 0 or 1.
        image: (B, 3, H, W), ImageNet-normalised.
        reconstructions: From X * A_t and from X * (1 - A_t); each (B, 3, H, W), with gradient to
            the classifier through A_t.
        target_map: A_t, (B, 1, H, W); as a mask it carries no gradient.
        predicted: Where the target is the CAM's argmax, bool (B, 1, H, W).
        weights: Weights of the terms.
        share: What part of a batch these images are: its terms are the sums of all parts'.
        label_smoothing: Of the image labels.
    """
    from_target, from_nontarget = reconstructions
    mask = target_map.detach()
    classification = share * classification_loss(class_logits, label, label_smoothing)
    target_error = share * _masked_error((mask == 0).to(mask.dtype), from_target, image).mean()
    nontarget_error = share * _masked_error(mask * predicted, from_nontarget, image).mean()
    total = (
        weights.cu_class * classification
        - weights.cu_target * target_error
        - weights.cu_nontarget * nontarget_error
    )
    return CuTerms(total, classification, target_error, nontarget_error)
