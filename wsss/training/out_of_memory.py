"""What to do when a training does not fit its GPU, said where all of its step is known."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from wsss.errors import UserError
from wsss.runtime.faults import gpu_memory
from wsss.training.step import Plan


def out_of_memory(error: Exception, plan: Plan, step: int, batch: Mapping[str, Any]) -> UserError:
    """Return the message for `torch.OutOfMemoryError` in a training step.

    Args:
        error: What PyTorch raised.
        plan: The training.
        step: Its step, from 0.
        batch: What went into it; "image" is (B, 3, H, W).
    """
    image = batch.get("image")
    size = ""
    if isinstance(image, Tensor) and image.dim() == 4:
        count, _, height, width = image.shape
        size = f", {count} images of {width} x {height} px on this GPU"
    fix = (
        "set compute.micro_batch for this stage (the result stays the same), use more GPUs "
        "(compute.gpus) or a larger one; or, with another result, lower this stage's batch_size "
        "or crop_px; then start again: it goes on from its checkpoint"
    )
    where = f"{plan.description}, step {step + 1} of {plan.total}, batch {plan.batch_size}{size}"
    explained = gpu_memory(error, where, fix=fix)
    assert explained is not None
    return explained
