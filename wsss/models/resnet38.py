"""ResNet-38d (Wide-ResNet38, model A1, of Wu et al., 2016), output stride 8.

Pre-activation residual blocks without max-pooling. The stage entered at 512 channels (b5) has
dilation 2 except its very first convolution, the two bottlenecks b6 and b7 dilation 4.
"""

from __future__ import annotations

import re
from pathlib import Path

import torch.nn.functional as F
from torch import Tensor, nn

from wsss.models.backbones import IMAGENET, Backbone
from wsss.models.config import BackboneConfig
from wsss.models.weights import LoadReport, load_strict, read_state_dict

CHANNELS = (128, 256, 512, 1024, 4096)
STRIDES = (2, 4, 8, 8, 8)

_STAGES: dict[str, tuple[int, int, int, int, int]] = {
    # stage: blocks, channels in, middle, out, stride
    "b2": (3, 64, 128, 128, 2),
    "b3": (3, 128, 256, 256, 2),
    "b4": (6, 256, 512, 512, 2),
    "b5": (3, 512, 512, 1024, 1),
}
# The first block of each of these is entered with a feature that others use.
_LEVELS = ("b3", "b4", "b5", "b6")


class _Block(nn.Module):
    """A residual block that gets its input activated, so that the caller can keep that tensor."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(in_channels)
        self.changes_shape = in_channels != out_channels or stride != 1
        if self.changes_shape:
            self.shortcut = nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False)

    def activate(self, x: Tensor) -> Tensor:
        """Return the block's activated input."""
        return F.relu(self.norm1(x), inplace=True)

    def forward(self, x: Tensor, activated: Tensor) -> Tensor:
        """Return the block's output from its input, raw and activated."""
        # Where the shape changes the shortcut starts from the activated tensor.
        start: Tensor = self.shortcut(activated) if self.changes_shape else x
        # In place, here as in the activations: at twice the image's size a feature takes 200 MB.
        return self.residual(activated).add_(start)

    def residual(self, activated: Tensor) -> Tensor:
        raise NotImplementedError


class _BasicBlock(_Block):
    def __init__(
        self,
        in_channels: int,
        mid_channels: int,
        out_channels: int,
        *,
        stride: int = 1,
        dilation: int = 1,
        first_dilation: int = 1,
    ) -> None:
        super().__init__(in_channels, out_channels, stride)
        self.conv1 = nn.Conv2d(
            in_channels,
            mid_channels,
            3,
            stride=stride,
            padding=first_dilation,
            dilation=first_dilation,
            bias=False,
        )
        self.norm2 = nn.BatchNorm2d(mid_channels)
        self.conv2 = nn.Conv2d(
            mid_channels, out_channels, 3, padding=dilation, dilation=dilation, bias=False
        )

    def residual(self, activated: Tensor) -> Tensor:
        x: Tensor = self.conv2(F.relu(self.norm2(self.conv1(activated)), inplace=True))
        return x


class _Bottleneck(_Block):
    def __init__(
        self, in_channels: int, out_channels: int, *, dilation: int, dropout: float
    ) -> None:
        super().__init__(in_channels, out_channels, 1)
        narrow, wide = out_channels // 4, out_channels // 2
        self.conv1 = nn.Conv2d(in_channels, narrow, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(narrow)
        self.conv2 = nn.Conv2d(narrow, wide, 3, padding=dilation, dilation=dilation, bias=False)
        self.norm3 = nn.BatchNorm2d(wide)
        self.conv3 = nn.Conv2d(wide, out_channels, 1, bias=False)
        self.dropout = nn.Dropout2d(dropout)

    def residual(self, activated: Tensor) -> Tensor:
        x: Tensor = self.conv1(activated)
        x = self.conv2(self.dropout(F.relu(self.norm2(x), inplace=True)))
        x = self.conv3(self.dropout(F.relu(self.norm3(x), inplace=True)))
        return x


class ResNet38(nn.Module):
    """The network without its head; features are activated tensors (BatchNorm, then ReLU).

    Args:
        dropout: Rate of the channel dropout in b6 and b7.
    """

    def __init__(self, dropout: float = 0.2) -> None:
        super().__init__()
        self.conv1a = nn.Conv2d(3, 64, 3, padding=1, bias=False)
        self.blocks = nn.ModuleDict()
        for stage, (count, first, middle, last, stride) in _STAGES.items():
            dilation = 2 if stage == "b5" else 1
            for i in range(count):
                self.blocks[stage if i == 0 else f"{stage}_{i}"] = _BasicBlock(
                    first if i == 0 else last,
                    middle,
                    last,
                    stride=stride if i == 0 else 1,
                    dilation=dilation,
                    first_dilation=1 if i == 0 else dilation,
                )
        self.blocks["b6"] = _Bottleneck(1024, 2048, dilation=4, dropout=dropout)
        self.blocks["b7"] = _Bottleneck(2048, 4096, dilation=4, dropout=dropout)
        self.norm7 = nn.BatchNorm2d(4096)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return the activated inputs of b3, b4, b5 and b6, and the final activated feature.

        Args:
            x: float (B, 3, H, W), ImageNet-normalised.

        Returns:
            128 channels at stride 2, 256 at 4, 512 at 8, 1024 at 8, 4096 at 8.
        """
        features = []
        x = self.conv1a(x)
        for name, block in self.blocks.items():
            assert isinstance(block, _Block)
            activated = block.activate(x)
            if name in _LEVELS:
                features.append(activated)
            x = block(x, activated)
        features.append(F.relu(self.norm7(x), inplace=True))
        return features


_PARTS = {
    "bn_branch2a": "norm1",
    "conv_branch2a": "conv1",
    "bn_branch2b1": "norm2",
    "conv_branch2b1": "conv2",
    "bn_branch2b2": "norm3",
    "conv_branch2b2": "conv3",
    "conv_branch1": "shortcut",
}
_MXNET_FIELDS = {
    "weight": "weight",
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_var": "running_var",
}


def rename_from_pytorch(name: str) -> str:
    """Turn a name of the CAM literature's PyTorch port (`b2_1.bn_branch2a.weight`) into ours.

    Names that are not the network's own (heads) come back as they are.
    """
    block, _, rest = name.partition(".")
    part, _, field = rest.partition(".")
    if re.fullmatch(r"b[2-7](_\d)?", block) and part in _PARTS:
        return f"blocks.{block}.{_PARTS[part]}.{field}"
    if block == "bn7":
        return f"norm7.{rest}"
    return name


def rename_from_mxnet(name: str) -> str:
    """Turn a name of `resnet_38d.params` (`arg:res2b1_branch2a_weight`) into ours.

    There a stage's first block is `2a`, the following ones `2b1`, `2b2`; unknown names come back
    as they are.
    """
    bare = name.split(":", 1)[-1]
    if bare == "conv1a_weight":
        return "conv1a.weight"
    final = re.fullmatch(r"bn7_(\w+)", bare)
    if final and final[1] in _MXNET_FIELDS:
        return f"norm7.{_MXNET_FIELDS[final[1]]}"
    inner = re.fullmatch(r"(res|bn)([2-7])(?:a|b(\d))_(branch\w+?)_([a-z]+(?:_[a-z]+)?)", bare)
    if inner is None or inner[5] not in _MXNET_FIELDS:
        return name
    kind, stage, index, branch, field = inner.groups()
    part = _PARTS.get(("bn_" if kind == "bn" else "conv_") + branch)
    if part is None:
        return name
    block = f"b{stage}" if index is None else f"b{stage}_{index}"
    return f"blocks.{block}.{part}.{_MXNET_FIELDS[field]}"


def build(config: BackboneConfig, weights_file: Path | None) -> Backbone:
    """Build the backbone; see `load_weights` for the file."""
    body = ResNet38()
    if weights_file is not None:
        load_weights(body, weights_file)
    return Backbone(body, channels=CHANNELS, strides=STRIDES, normalisation=IMAGENET)


def load_weights(network: ResNet38, path: Path) -> LoadReport:
    """Load ImageNet weights: MXNet's `resnet_38d.params`, its PyTorch port, or our own names.

    Left out: the ImageNet classifier (`linear1000`; `fc`, `fc8` in ports).

    Raises:
        UserError: The file is damaged or not this network's.
    """
    state = read_state_dict(path)

    def rename(name: str) -> str:
        return rename_from_mxnet(name) if ":" in name else rename_from_pytorch(name)

    def is_head(name: str) -> bool:
        return re.match(r"(arg:|aux:)?(linear1000|fc\d*)[._]", name) is not None

    return load_strict(network, state, rename=rename, leave_out=is_head, where=path)
