"""Convolutions that cost the same for a picture of a new size as for the next one of that size.

For every size that it has not met, cuDNN plans each convolution anew, and for a depthwise one it
compiles a kernel: on an H200 a picture of a new size took EfficientNet-Lite0 1.0 s, the next one of
that size 3 ms. Pictures have hundreds of sizes, each seen at several scales. In training every
crop has one size; there cuDNN's kernels are the fastest and stay.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Pointwise(nn.Module):
    """A 1x1 convolution as the product of matrices that it is."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.weight = nn.Parameter(conv.weight.detach().flatten(1), requires_grad=False)
        self.bias = conv.bias

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, C', H, W) of (B, C, H, W); the latter is not copied if channels are last."""
        return F.linear(x.permute(0, 2, 3, 1), self.weight, self.bias).permute(0, 3, 1, 2)


class Depthwise(nn.Module):
    """A depthwise convolution by PyTorch's own kernel."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.conv = conv

    def forward(self, x: Tensor) -> Tensor:
        """Return what the convolution returns."""
        with torch.backends.cudnn.flags(enabled=False):
            found: Tensor = self.conv(x)
        return found


def plan_nothing(network: nn.Module) -> None:
    """Replace, in place, the convolutions of a network whose plans are dear.

    Args:
        network: A traced network for inference. Its dense convolutions wider than one pixel stay:
            they are few in light networks, and as products they would be far slower.
    """
    for name, conv in list(network.named_modules()):
        # Subclasses pad by the input's size first; one pixel wide, there is nothing to pad.
        if not isinstance(conv, nn.Conv2d):
            continue
        if conv.groups == conv.in_channels > 1:
            network.set_submodule(name, Depthwise(conv))
        elif conv.kernel_size == (1, 1) and _is_product(conv):
            network.set_submodule(name, Pointwise(conv))


def _is_product(conv: nn.Conv2d) -> bool:
    return conv.groups == 1 and conv.stride == (1, 1) and conv.padding in ((0, 0), 0)
