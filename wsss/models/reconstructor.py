"""The classifier with its CAM head, and ACR's reconstructor (encoder, gathered feature, UNet).

ACR, CVPR 2023: the decoder is that of the supplementary, Table A1. The two presets differ where
the paper and the released code do.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wsss.errors import UserError
from wsss.models.backbones import Backbone
from wsss.models.classifier import Classifier
from wsss.models.resize import resize_bilinear

Preset = Literal["paper", "official"]

_OFFICIAL_HEAD_CHANNELS = 256
_SLOPE = 0.2
_DROPOUT = 0.5
# Blocks D4 and deeper, U4 and deeper, have dropout.
_FIRST_DROPOUT_BLOCK = 4


class CamHead(nn.Module):
    """1x1 convolutions whose output is the CAM.

    Args:
        in_channels: Channels of the feature.
        n_classes: Classes, background not among them.
        preset: `paper`: one convolution; `official`: two, with 256 channels and ReLU between.
    """

    def __init__(self, in_channels: int, n_classes: int, preset: Preset) -> None:
        super().__init__()
        self.hidden: nn.Conv2d | None = None
        if preset == "official":
            self.hidden = nn.Conv2d(in_channels, _OFFICIAL_HEAD_CHANNELS, 1, bias=False)
            in_channels = _OFFICIAL_HEAD_CHANNELS
        self.classes = nn.Conv2d(in_channels, n_classes, 1, bias=False)
        for layer in (self.hidden, self.classes):
            if layer is not None:
                nn.init.xavier_uniform_(layer.weight)

    @property
    def class_weights(self) -> Tensor:
        """The last layer's weights, (C, D')."""
        return self.classes.weight[:, :, 0, 0]

    def last_features(self, feature: Tensor) -> Tensor:
        """Return what the last layer reads: (B, D, h, w) -> (B, D', h, w)."""
        return feature if self.hidden is None else F.relu(self.hidden(feature))

    def forward(self, feature: Tensor) -> Tensor:
        """Return the CAM logits of a feature: (B, D, h, w) -> (B, C, h, w)."""
        cam: Tensor = self.classes(self.last_features(feature))
        return cam


def class_logits_of(cam: Tensor) -> Tensor:
    """Return the class logits, the CAM's global average: (B, C, h, w) -> float (B, C)."""
    return (cam if cam.dtype == torch.float64 else cam.float()).mean(dim=(2, 3))


class CamClassifier(Classifier):
    """A backbone with a CAM head: class logits and CAM from one pass.

    Args:
        backbone: Feature extractor; the head sits on its last feature.
        n_classes: Classes, background not among them.
        preset: Form of the head.
    """

    gives_features = True

    def __init__(self, backbone: Backbone, n_classes: int, preset: Preset) -> None:
        super().__init__()
        self.backbone = backbone
        self.normalisation = backbone.normalisation
        self.head = CamHead(backbone.out_channels, n_classes, preset)

    @property
    def class_weights(self) -> Tensor:
        """The head's last layer, (C, D)."""
        return self.head.class_weights

    def export_head(self) -> CamHead:
        """Return the head whose output is the exported CAM."""
        return self.head

    def features(self, x: Tensor) -> Tensor:
        """Return what the head's last layer reads, (B, D, h, w), of normalised images."""
        return self.head.last_features(self.backbone(x)[-1])

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Classify images.

        Args:
            x: float (B, 3, H, W), normalised with the backbone's normalisation.

        Returns:
            Class logits, float32 (B, C), and the CAM's raw logits, (B, C, h, w).
        """
        cam = self.head(self.backbone(x)[-1])
        return class_logits_of(cam), cam


def _normalised(channels: int, enabled: bool) -> nn.Module:
    return nn.InstanceNorm2d(channels) if enabled else nn.Identity()


class Decoder(nn.Module):
    """The UNet of Table A1, from a feature at the image's size to the image.

    Args:
        in_channels: Channels d of the feature.
        depth: Halvings k.
        width: Channels of the first block; block i has min(width * 2**(i-1), 8 * width).
        preset: `paper`: LeakyReLU on the way up, 2x bilinear + 1x1 at the end; `official`: ReLU,
            2x nearest + 3x3.
    """

    def __init__(self, in_channels: int, *, depth: int, width: int, preset: Preset) -> None:
        super().__init__()
        self.depth = depth
        self.preset = preset
        widths = [min(width * 2**i, 8 * width) for i in range(depth)]
        self.down = nn.ModuleList()
        for block, (before, after) in enumerate(
            zip([in_channels, *widths], widths, strict=False), start=1
        ):
            self.down.append(
                nn.Sequential(
                    nn.Conv2d(before, after, 4, stride=2, padding=1, bias=False),
                    # The innermost block is a single pixel at full depth: nothing to normalise.
                    _normalised(after, 1 < block < depth),
                    nn.LeakyReLU(_SLOPE, inplace=True),
                    nn.Dropout(_DROPOUT if block >= _FIRST_DROPOUT_BLOCK else 0.0),
                )
            )
        # Innermost first: U(k-1) to U1.
        self.up = nn.ModuleList()
        joined = widths[-1]
        for block in range(depth - 1, 0, -1):
            after = widths[block - 1]
            self.up.append(
                nn.Sequential(
                    nn.ConvTranspose2d(joined, after, 4, stride=2, padding=1, bias=False),
                    _normalised(after, True),
                    nn.LeakyReLU(_SLOPE, inplace=True)
                    if preset == "paper"
                    else nn.ReLU(inplace=True),
                    nn.Dropout(_DROPOUT if block >= _FIRST_DROPOUT_BLOCK else 0.0),
                )
            )
            joined = 2 * after
        self.colour = (
            nn.Conv2d(joined, 3, 1) if preset == "paper" else nn.Conv2d(joined, 3, 3, padding=1)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Reconstruct images.

        Args:
            x: float (B, d, S, S), S a multiple of 2**depth.

        Returns:
            float (B, 3, S, S), ImageNet-normalised colours.

        Raises:
            UserError: S does not fit.
        """
        check_decoded_side(x.shape[-1], self.depth)
        check_decoded_side(x.shape[-2], self.depth)
        skips: list[Tensor] = []
        for block in self.down:
            x = block(x)
            skips.append(x)
        skips.pop()
        for block in self.up:
            x = torch.cat([block(x), skips.pop()], dim=1)
        return self._colourise(x)

    def _colourise(self, x: Tensor) -> Tensor:
        if self.preset == "paper":
            # A 1x1 convolution and bilinear resizing commute; this order costs a quarter.
            small = self.colour(x)
            return resize_bilinear(small, (2 * x.shape[-2], 2 * x.shape[-1]))
        x = self.colour(F.interpolate(x, scale_factor=2, mode="nearest"))
        return x


def check_decoded_side(side_px: int, depth: int) -> None:
    """Raise a `UserError` unless a side can be halved `depth` times."""
    unit = 2**depth
    if side_px < unit or side_px % unit:
        below, above = side_px // unit * unit, -(-side_px // unit) * unit
        fitting = ", ".join(str(px) for px in sorted({below, above, above + unit} - {0}))
        raise UserError(
            f"a decoder with {depth} halvings cannot reconstruct at {side_px} px",
            expected=f"a multiple of {unit} px; near this: {fitting}",
            fix="change the crop (or decoding) size, or the decoder's depth",
        )


class Reconstructor(nn.Module):
    """Encoder with its own classification head, gathered feature X, and decoder.

    Args:
        backbone: The encoder's network.
        n_classes: Classes of its head.
        head: Form of its head.
        levels: Which of the backbone's features X is gathered from, counted from 0.
        channels: Channels gathered from each.
        depth: Halvings of the decoder.
        width: Base width of the decoder.
        preset: Form of the decoder.

    Raises:
        UserError: A level the backbone does not have.
    """

    def __init__(
        self,
        backbone: Backbone,
        n_classes: int,
        *,
        head: Preset,
        levels: Sequence[int],
        channels: Sequence[int],
        depth: int,
        width: int,
        preset: Preset,
    ) -> None:
        super().__init__()
        if max(levels) >= len(backbone.channels):
            raise UserError(
                f"acr.feature_levels is {list(levels)}, but the backbone has "
                f"{len(backbone.channels)} features",
                expected=f"numbers from 0 to {len(backbone.channels) - 1}",
            )
        self.levels = tuple(levels)
        self.encoder = CamClassifier(backbone, n_classes, head)
        self.gather = nn.ModuleList(
            nn.Conv2d(backbone.channels[level], count, 1, bias=False)
            for level, count in zip(levels, channels, strict=True)
        )
        for layer in self.gather:
            assert isinstance(layer, nn.Conv2d)
            nn.init.xavier_uniform_(layer.weight)
        self.decoder = Decoder(sum(channels), depth=depth, width=width, preset=preset)

    def encode(self, x: Tensor, *, classify: bool = True) -> tuple[Tensor | None, Tensor]:
        """Return the encoder's class logits and the gathered feature X.

        Args:
            x: float (B, 3, H, W), normalised with the backbone's normalisation.
            classify: Whether the class logits are wanted.

        Returns:
            Class logits, float32 (B, C), or None; and X, (B, d, h, w), h and w those of the
            finest level gathered.
        """
        features = self.encoder.backbone(x)
        logits = class_logits_of(self.encoder.head(features[-1])) if classify else None
        parts = [
            layer(features[level]) for layer, level in zip(self.gather, self.levels, strict=True)
        ]
        height, width = max((part.shape[-2:] for part in parts), key=lambda shape: shape[0])
        parts = [resize_bilinear(part, (height, width)) for part in parts]
        return logits, torch.cat(parts, dim=1)

    def decode(self, feature: Tensor) -> Tensor:
        """Reconstruct from a masked feature at the decoded size: (B, d, S, S) -> (B, 3, S, S)."""
        out: Tensor = self.decoder(feature)
        return out

    def forward(self, x: Tensor, side_px: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return class logits, X and the reconstruction from all of X at `side_px`."""
        logits, feature = self.encode(x)
        assert logits is not None
        upscaled = resize_bilinear(feature, (side_px, side_px))
        return logits, feature, self.decode(upscaled)
