"""Convolutional networks made cheaper to train on a CPU, with the same results but for rounding.

A frozen BatchNorm is a product and a sum for each channel; folded into the weights of the
convolution before it, it needs no pass over the feature and keeps no copy of it for the gradient.
The gradient of a ReLU6 is known from its result; in place, PyTorch keeps a copy of its input. The
gradients of a dilated depthwise convolution are convolutions, too, and oneDNN is up to twenty times
as fast in that form. Names, weights and state dicts stay as they are.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from timm.layers import BatchNormAct2d, Conv2dSame, pad_same  # type: ignore[attr-defined]
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from wsss.models.backbones import Backbone
from wsss.models.traced import before_convolutions_alone, before_frozen_batchnorm, folded, traced

OURS = ("timm.", "wsss.")


def lighten(network: nn.Module) -> None:
    """Make a network that is to be trained on a CPU cheaper to compute, in place.

    Args:
        network: On the CPU, its BatchNorm frozen where it is to be: one that is unfrozen later
            computes as it would have. Backbones of timm's and of this package, whose operations
            are known, have it folded; dilated depthwise convolutions are changed wherever they are.
    """
    for part in network.modules():
        if isinstance(part, Backbone) and type(part.body).__module__.startswith(OURS):
            _lighten_backbone(part)
    for part in network.modules():
        if type(part) is nn.Conv2d and _is_dilated_depthwise(part):
            _change(part, _DilatedDepthwise)


def _lighten_backbone(backbone: Backbone) -> None:
    graph = traced(backbone)
    if graph is None:
        return
    for node in before_convolutions_alone(graph):
        norm: Any = backbone.get_submodule(str(node.target))
        if type(norm.act) is nn.ReLU6 and norm.act.inplace:
            _change(norm.act, _InPlaceReLU6)
    for source, node in before_frozen_batchnorm(graph):
        conv, norm = (backbone.get_submodule(str(each.target)) for each in (source, node))
        _change(conv, _FoldedConv)
        _change(norm, _FoldedNorm)
        conv.__dict__["norm_behind"] = norm  # where it is no part of the convolution


_changed: dict[tuple[type, type], Any] = {}


def _change(module: nn.Module, mixin: type) -> None:
    """Put `mixin` before the module's class."""
    kind = type(module)
    if issubclass(kind, mixin):
        return
    if (mixin, kind) not in _changed:
        _changed[mixin, kind] = type(
            f"{mixin.__name__.lstrip('_')}{kind.__name__}", (mixin, kind), {}
        )
    module.__class__ = _changed[mixin, kind]


def _is_folded(norm: _BatchNorm) -> bool:
    return isinstance(norm, _FoldedNorm) and not norm.training


class _FoldedConv:
    """Mixed in before a convolution class: what follows it is done in its weights.

    Attributes:
        norm_behind: The BatchNorm behind it.
    """

    norm_behind: Any

    def forward(self: Any, x: Tensor) -> Tensor:
        norm = self.norm_behind
        if not _is_folded(norm):
            plain: Tensor = super().forward(x)  # type: ignore[misc]
            return plain
        weight, bias = folded(self, norm)
        if isinstance(self, Conv2dSame):
            x = pad_same(x, list(self.weight.shape[-2:]), list(self.stride), list(self.dilation))
        found: Tensor = self._conv_forward(x, weight, bias)
        return found


class _FoldedNorm:
    """Mixed in before a BatchNorm class: what is left of it, which is an activation or nothing."""

    def forward(self: Any, x: Tensor) -> Tensor:
        if not _is_folded(self):
            plain: Tensor = super().forward(x)  # type: ignore[misc]
            return plain
        if isinstance(self, BatchNormAct2d):
            x = self.act(self.drop(x))
        return x


class _InPlaceReLU6:
    """Mixed in before `nn.ReLU6`, in place: it keeps only its result, which must stay as it is."""

    def forward(self: Any, x: Tensor) -> Tensor:
        found: Tensor = _ClampInPlace.apply(x)
        return found


class _ClampInPlace(torch.autograd.Function):
    """ReLU6 of a tensor that is no leaf and that no other gradient needs."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        x.clamp_(0, 6)
        ctx.mark_dirty(x)
        ctx.save_for_backward(x)
        return x

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (result,) = ctx.saved_tensors
        found: Tensor = torch.ops.aten.hardtanh_backward(gradient, result, 0, 6)
        return found


class _DilatedDepthwise:
    """Mixed in before a convolution class: its gradients are convolutions."""

    def _conv_forward(self: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        rounds = x.dtype in (torch.bfloat16, torch.float16) or torch.is_autocast_enabled("cpu")
        if rounds or x.device.type != "cpu":
            plain: Tensor = super()._conv_forward(x, weight, bias)  # type: ignore[misc]
            return plain
        # Rows and columns of the kernel that lie outside whatever pixel they are applied to.
        padding = list(self.padding)
        for axis, (step, pad, size) in enumerate(
            zip(self.dilation, self.padding, x.shape[-2:], strict=True)
        ):
            side = weight.shape[2 + axis]
            made = size + 2 * pad - step * (side - 1)
            beside = [k for k in range(side) if -made < k * step - pad < size]
            # Of the others on both sides the same number, so that the padding stays one.
            cut = min(beside[0], side - 1 - beside[-1], pad // step) if beside else 0
            weight = weight.narrow(2 + axis, cut, side - 2 * cut)
            padding[axis] -= cut * step
        found: Tensor = _Depthwise.apply(x, weight, bias, tuple(padding), self.dilation)
        return found


def _is_dilated_depthwise(conv: nn.Conv2d) -> bool:
    reach = [step * (side - 1) for step, side in zip(conv.dilation, conv.kernel_size, strict=True)]
    return (
        conv.groups == conv.in_channels == conv.out_channels > 1
        and conv.stride == (1, 1)
        and max(conv.dilation) > 1
        and conv.padding_mode == "zeros"
        and not isinstance(conv.padding, str)
        and all(pad <= most for pad, most in zip(conv.padding, reach, strict=True))
    )


class _Depthwise(torch.autograd.Function):
    """A depthwise convolution of stride 1, (B, C, H, W) with weights (C, 1, k, l)."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        padding: tuple[int, int],
        dilation: tuple[int, int],
    ) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.padding, ctx.dilation = padding, dilation
        return F.conv2d(x, weight, bias, 1, padding, dilation, x.shape[1])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        groups, padding, dilation = x.shape[1], ctx.padding, ctx.dilation
        for_x = for_weight = for_bias = None
        if ctx.needs_input_grad[0]:
            rest = [
                step * (side - 1) - pad
                for step, side, pad in zip(dilation, weight.shape[-2:], padding, strict=True)
            ]
            flipped = weight.flip(2, 3)
            for_x = F.conv2d(gradient, flipped, None, 1, rest, dilation, groups)
        wanted = [False, *ctx.needs_input_grad[1:3]]
        if wanted[1]:
            for_weight = _for_weight(x, gradient, weight, padding, dilation)
            wanted[1] = for_weight is None
        if any(wanted):
            _, plain, for_bias = _gradients(gradient, x, weight, padding, dilation, wanted)
            for_weight = plain if wanted[1] else for_weight
        return for_x, for_weight, for_bias, None, None


def _for_weight(
    x: Tensor,
    gradient: Tensor,
    weight: Tensor,
    padding: tuple[int, int],
    dilation: tuple[int, int],
) -> Tensor | None:
    """Return the weights' gradient where there is a quicker form than PyTorch's, else None."""
    reach = [step * (side - 1) for step, side in zip(dilation, weight.shape[-2:], strict=True)]
    if any(size <= most for size, most in zip(x.shape[-2:], reach, strict=True)):
        # oneDNN has no kernel of its own for them. Six times as fast at 8 x 8 px, 5 x 5 by 2.
        return _slid(x, gradient, padding, dilation)
    whole = tuple(2 * pad for pad in padding) == tuple(reach)
    if whole and weight.shape[-2:] == (3, 3) and dilation[0] == dilation[1]:
        # Three times as fast. Larger kernels gain nothing by it.
        return _in_phases(x, gradient, dilation[0])
    return None


def _slid(
    x: Tensor, gradient: Tensor, padding: tuple[int, int], dilation: tuple[int, int]
) -> Tensor:
    """Slide the gradient over `x`: the places where it stops are the kernel's."""
    count, channels, height, width = gradient.shape
    rows, columns = padding
    # (H, W, B, C): a channel of an image is a group of its own, and channels last.
    around = F.pad(x.permute(2, 3, 0, 1), (0, 0, 0, 0, columns, columns, rows, rows))
    images = around.reshape(1, *around.shape[:2], count * channels).permute(0, 3, 1, 2)
    kernels = gradient.permute(2, 3, 0, 1).reshape(height, width, count * channels)
    found = F.conv2d(
        images, kernels.permute(2, 0, 1).unsqueeze(1), stride=dilation, groups=count * channels
    )
    return found.reshape(count, channels, 1, *found.shape[-2:]).sum(dim=0)


def _in_phases(x: Tensor, gradient: Tensor, step: int) -> Tensor:
    """Take every `step`-th row and column as an image of its own: 3 x 3 kernels without dilation.

    What is computed for the rows and columns added to make the sizes multiples is multiplied by
    the gradient's zeros.
    """

    def phases(maps: Tensor) -> Tensor:
        count, channels, height, width = maps.shape
        maps = F.pad(maps.permute(0, 2, 3, 1), (0, 0, 0, -width % step, 0, -height % step))
        rows, columns = maps.shape[1] // step, maps.shape[2] // step
        apart = maps.reshape(count, rows, step, columns, step, channels)
        return apart.permute(0, 2, 4, 1, 3, 5).flatten(0, 2).permute(0, 3, 1, 2)

    weight = x.new_empty(x.shape[1], 1, 3, 3)
    wanted = [False, True, False]
    found = _gradients(phases(gradient), phases(x), weight, (1, 1), (1, 1), wanted)[1]
    assert found is not None
    return found


def _gradients(
    gradient: Tensor,
    x: Tensor,
    weight: Tensor,
    padding: tuple[int, int],
    dilation: tuple[int, int],
    wanted: list[bool],
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Return PyTorch's own gradients for input, weights and bias, where they are `wanted`."""
    groups = x.shape[1]
    found: tuple[Tensor | None, Tensor | None, Tensor | None]
    found = torch.ops.aten.convolution_backward(
        *(gradient, x, weight, [groups], [1, 1], list(padding), list(dilation)),
        *(False, [0, 0], groups, wanted),
    )
    return found
