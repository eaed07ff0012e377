"""BatchNorm over a batch that several processes share.

PyTorch's SyncBatchNorm works on GPUs only and replaces the modules, which loses the activation in
timm's; this one works on both and changes the modules in place, so that names in a state dict stay.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.modules.batchnorm import _BatchNorm

from wsss.errors import UserError
from wsss.runtime.processes import Processes


def learns(modules: Iterable[nn.Module]) -> bool:
    """Say whether any BatchNorm takes its statistics from the batch."""
    return any(
        isinstance(part, _BatchNorm) and part.training
        for module in modules
        for part in module.modules()
    )


def synchronise_batchnorm(module: nn.Module) -> None:
    """Make every BatchNorm of `module` that learns do so over all processes, in place.

    Raises:
        UserError: One computes more than a BatchNorm or timm's with an activation behind it.
    """
    for part in module.modules():
        if isinstance(part, _BatchNorm) and part.training and not isinstance(part, _Synchronised):
            kind = type(part)
            activates = _is_timms(kind)
            if kind.forward is not _BatchNorm.forward and not activates:
                raise UserError(
                    f"{kind.__name__} of {type(module).__name__} is a BatchNorm of its own kind, "
                    "whose statistics several processes cannot share",
                    expected="torch's BatchNorm, or timm's BatchNormAct2d",
                    fix="set freeze_batchnorm, choose another backbone, or compute.gpus: 1",
                )
            if kind not in _classes:
                _classes[kind] = type(
                    f"Synchronised{kind.__name__}",
                    (_Synchronised, kind),
                    {"activates": activates},
                )
            part.__class__ = _classes[kind]


_classes: dict[type, Any] = {}


def _is_timms(kind: type[_BatchNorm]) -> bool:
    """Say whether a BatchNorm is timm's with an activation behind it, where timm is loaded."""
    module = sys.modules.get("timm.layers.norm_act")
    return module is not None and kind.forward is module.BatchNormAct2d.forward


class _Synchronised:
    """Mixed in before a BatchNorm class.

    Attributes:
        activates: Whether that is timm's, with an activation behind it.
    """

    activates: bool

    def forward(self: Any, x: Tensor) -> Tensor:
        processes = Processes.here()
        if not self.training or processes.size == 1:
            plain: Tensor = super().forward(x)  # type: ignore[misc]
            return plain
        y, mean, variance, count = _Normalise.apply(x, self.weight, self.bias, self.eps, processes)
        if self.track_running_stats:
            self._track(mean, variance * (count / (count - 1)))
        if self.activates:
            y = self.act(self.drop(y))
        out: Tensor = y
        return out

    def _track(self: Any, mean: Tensor, variance: Tensor) -> None:
        with torch.no_grad():
            self.num_batches_tracked.add_(1)
            momentum = self.momentum
            if momentum is None:
                momentum = 1.0 / float(self.num_batches_tracked)
            self.running_mean.lerp_(mean.to(self.running_mean.dtype), momentum)
            self.running_var.lerp_(variance.to(self.running_var.dtype), momentum)


def _statistics(x: Tensor, processes: Processes) -> tuple[Tensor, Tensor, Tensor]:
    """Return mean and variance of each channel, and the number of values, over all processes."""
    dims = [dim for dim in range(x.dim()) if dim != 1]
    variance, mean = torch.var_mean(x, dims, correction=0)
    channels = x.shape[1]
    count = mean.new_full((1,), x.numel() / channels)
    everyone = processes.gather(torch.cat([mean, variance, count]))
    means, variances = everyone[:, :channels], everyone[:, channels:-1]
    counts = everyone[:, -1:]
    total = counts.sum()
    overall = (counts * means).sum(0) / total
    # From each process's own mean, not from the mean of squares, which loses digits.
    spread = (counts * (variances + (means - overall).square())).sum(0) / total
    return overall, spread, total


class _Normalise(torch.autograd.Function):
    """Batch normalisation with the statistics, and their gradient, of all processes."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        eps: float,
        group: Processes,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        wide = x if x.dtype == torch.float64 else x.float()
        mean, variance, count = _statistics(wide, group)
        scale = torch.rsqrt(variance + eps)
        ctx.save_for_backward(x, weight, mean, scale, count)
        ctx.group, ctx.has_bias = group, bias is not None
        shape = (1, -1, *[1] * (x.dim() - 2))
        gain = scale if weight is None else scale * weight
        y = (wide - mean.view(shape)) * gain.view(shape)
        if bias is not None:
            y = y + bias.view(shape)
        ctx.mark_non_differentiable(mean, variance, count)
        return y.to(x.dtype), mean, variance, count

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, gradient: Tensor, *unused: Tensor
    ) -> tuple[Tensor, Tensor | None, Tensor | None, None, None]:
        x, weight, mean, scale, count = ctx.saved_tensors
        dims = [dim for dim in range(x.dim()) if dim != 1]
        shape = (1, -1, *[1] * (x.dim() - 2))
        wide = gradient.to(mean.dtype)
        normal = (x.to(mean.dtype) - mean.view(shape)) * scale.view(shape)
        # This process's part of the gradients of bias and weight; they are added up with all
        # other gradients, later. The gradient to x needs their totals now.
        of_bias, of_weight = wide.sum(dims), (wide * normal).sum(dims)
        totals = ctx.group.sum(torch.cat([of_bias, of_weight])) / count
        mean_gradient, mean_product = totals.view(2, *shape).unbind(0)
        gain = scale if weight is None else scale * weight
        of_x = (wide - mean_gradient - normal * mean_product) * gain.view(shape)
        return (
            of_x.to(x.dtype),
            None if weight is None else of_weight.to(weight.dtype),
            of_bias.to(mean.dtype) if ctx.has_bias else None,
            None,
            None,
        )
