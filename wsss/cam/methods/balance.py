"""How hard an adversary pulls at a CAM, beside the image labels, and a bound on it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from wsss.cam.losses import at_least_float32
from wsss.training.distributed import Split


class Pulls(NamedTuple):
    """The gradients of two losses at the CAM.

    Attributes:
        classification: Squared norm of the image labels' gradient, scalar. Those of a batch's
            parts, and of its processes, add up to the whole batch's.
        adversarial: The same of the adversarial terms' gradient, before any bound.
        scale: What the adversarial gradient is multiplied with, scalar.
        loss: What a backward pass starts from, scalar: the sum of both, and its gradient with the
            adversarial one scaled.
    """

    classification: Tensor
    adversarial: Tensor
    scale: Tensor
    loss: Tensor


def bounded_scale(classification: Tensor, adversarial: Tensor, bound: float) -> Tensor:
    """Return min(1, bound * classification / adversarial).

    Args:
        classification: Norm of one gradient, scalar.
        adversarial: Norm of the other, scalar; where it is 0 there is nothing to bound.
        bound: Largest quotient of the second to the first.
    """
    tiny = torch.finfo(adversarial.dtype).tiny
    return (bound * classification / adversarial.clamp(min=tiny)).clamp(max=1.0)


def pull(
    cam: Tensor, classification: Tensor, adversarial: Tensor, bound: float | None, split: Split
) -> Pulls | None:
    """Take both gradients at the CAM, and scale the adversarial one down to the bound.

    The gradient that goes on into the classifier is, without a bound or below it, that of
    `classification + adversarial`.

    Args:
        cam: What both losses come from, with gradient; with a bound, of all the process's images.
        classification: Scalar, weighted.
        adversarial: Scalar, weighted, with its sign. Its graph is used up.
        bound: Largest norm of its gradient, as a multiple of the other's; None: none.
        split: How the batch is dealt out; the bound is on norms of the whole batch.

    Returns:
        None where the image labels' loss does not come from this CAM.
    """
    unused_too: Sequence[Tensor | None] = torch.autograd.grad(
        classification, cam, retain_graph=True, allow_unused=True
    )
    of_labels = unused_too[0]
    if of_labels is None:
        return None
    # This walks through the adversary's network once; the backward pass then starts at the CAM.
    (of_adversary,) = torch.autograd.grad(adversarial, cam)
    squares = torch.stack([at_least_float32(g).square().sum() for g in (of_labels, of_adversary)])
    scale = torch.ones_like(squares[1])
    if bound is not None:
        norms = split.processes.sum(squares).sqrt()
        scale = bounded_scale(norms[0], norms[1], bound)
    pulled = at_least_float32(of_adversary)
    if bound is not None:
        pulled = pulled * scale
    carrier = (at_least_float32(cam) * pulled).sum()
    loss = classification + adversarial.detach() + (carrier - carrier.detach())
    return Pulls(squares[0], squares[1], scale, loss)
