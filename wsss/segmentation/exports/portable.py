"""A trained model as one function of a picture, in a form that can be written for other runtimes.

Everything between the picture's bytes and the probabilities is inside: normalisation, padding,
resizing, softmax. What it gives is what `wsss.segmentation.inference` gives at one scale, without
mirror images and without the CRF, but for rounding.
"""

from __future__ import annotations

import copy
from typing import cast

import torch
import torch.nn.functional as F
from timm.layers import Conv2dSame  # type: ignore[attr-defined]  # moved within timm
from torch import Tensor, nn

from wsss.models.deeplab import DeepLab
from wsss.models.heads.tokens import PyramidHead


class PortableModel(nn.Module):
    """Pictures to probabilities.

    Args:
        network: A trained network; it is copied.

    Attributes:
        multiple: What both sides are padded to a multiple of, inside.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: DeepLab) -> None:
        super().__init__()
        self.network = _with_fixed_padding(copy.deepcopy(network).float().eval())
        self.multiple = network.padding_stride
        normalisation = network.backbone.normalisation
        self.register_buffer("mean", torch.tensor(normalisation.mean)[:, None, None])
        self.register_buffer("std", torch.tensor(normalisation.std)[:, None, None])

    def forward(self, image: Tensor) -> Tensor:
        """Return the probabilities of every pixel.

        Args:
            image: (B, H, W, 3) uint8 RGB, of any size.

        Returns:
            (B, n_labels, H, W) float32, background first, summing to 1 over the labels.
        """
        x = (image.permute(0, 3, 1, 2).float() / 255 - self.mean) / self.std
        height, width = x.shape[2:]
        rows = (height + self.multiple - 1) // self.multiple * self.multiple
        columns = (width + self.multiple - 1) // self.multiple * self.multiple
        logits = self.network(F.pad(x, (0, columns - width, 0, rows - height)))
        logits = F.interpolate(logits, size=(rows, columns), mode="bilinear", align_corners=False)
        # Chosen by their numbers rather than cut off: of a slice it would be asked whether it is
        # the whole, and what is recorded would hold for either case alone.
        whole = logits.softmax(dim=1)
        inside = whole.index_select(2, torch.arange(height, device=whole.device))
        return inside.index_select(3, torch.arange(width, device=whole.device))


class _PaddedConv(nn.Module):
    """A convolution padded as TensorFlow's SAME, of sizes that are multiples of its stride.

    timm's own looks at the size in every pass; of multiples the padding is always the same.
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        sides = zip(conv.kernel_size, conv.stride, conv.dilation, strict=True)
        (top, bottom), (left, right) = (self._sides(*each) for each in sides)
        self.padding = (left, right, top, bottom)
        self.conv = nn.Conv2d(
            conv.in_channels,
            conv.out_channels,
            (conv.kernel_size[0], conv.kernel_size[1]),
            (conv.stride[0], conv.stride[1]),
            dilation=(conv.dilation[0], conv.dilation[1]),
            groups=conv.groups,
            bias=conv.bias is not None,
        )
        self.conv.load_state_dict(conv.state_dict())

    @staticmethod
    def _sides(kernel: int, stride: int, dilation: int) -> tuple[int, int]:
        total = max((kernel - 1) * dilation + 1 - stride, 0)
        return total // 2, total - total // 2

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(F.pad(x, self.padding))
        return out


class _WholePyramid(nn.Module):
    """A pyramid head whose sizes are whole numbers throughout, equal to `PyramidHead`'s."""

    def __init__(self, head: PyramidHead) -> None:
        super().__init__()
        self.head = head

    def forward(self, features: list[Tensor]) -> Tensor:
        height, width = features[-1].shape[-2:]
        total: Tensor | None = None
        levels = zip(self.head.lateral, features, self.head.factors, strict=True)
        for lateral, feature, factor in reversed(list(levels)):
            size = [_scaled(height, factor), _scaled(width, factor)]
            level = F.interpolate(lateral(feature), size=size, mode="bilinear", align_corners=False)
            if total is not None:
                level = level + F.interpolate(
                    total, size=size, mode="bilinear", align_corners=False
                )
            total = level
        assert total is not None
        logits: Tensor = self.head.classifier(self.head.smooth(total))
        return logits


def _scaled(side: int, factor: float) -> int:
    """Return `max(1, round(side * factor))` for factors 2**k, where `side` may be a symbol."""
    if factor >= 1:
        return side * int(factor)
    part = int(1 / factor)
    # Half to even, as Python rounds: up where the part below is odd, or more than half is left.
    below, left = side // part, side % part
    return cast(int, torch.sym_max(1, below + (2 * left + below % 2) // (part + 1)))


def _with_fixed_padding(network: DeepLab) -> DeepLab:
    for name, module in list(network.named_modules()):
        if isinstance(module, Conv2dSame):
            network.set_submodule(name, _PaddedConv(module))
        elif isinstance(module, PyramidHead):
            network.set_submodule(name, _WholePyramid(module))
    return network
