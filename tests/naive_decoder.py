"""ACR's decoder from its description, layer by layer."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from wsss.models.reconstructor import Decoder


def naive_decode(decoder: Decoder, x: torch.Tensor, preset: str) -> torch.Tensor:
    """The decoder from its description; no dropout."""

    def normalised(x: torch.Tensor) -> torch.Tensor:
        mean = x.mean(dim=(2, 3), keepdim=True)
        variance = ((x - mean) ** 2).mean(dim=(2, 3), keepdim=True)
        return (x - mean) / (variance + 1e-5).sqrt()

    skips = []
    for i, block in enumerate(decoder.down):
        x = F.conv2d(x, block[0].weight, stride=2, padding=1)
        if 0 < i < len(decoder.down) - 1:
            x = normalised(x)
        x = torch.where(x > 0, x, 0.2 * x)
        skips.append(x)
    skips.pop()
    for block in decoder.up:
        x = normalised(F.conv_transpose2d(x, block[0].weight, stride=2, padding=1))
        x = torch.where(x > 0, x, (0.2 if preset == "paper" else 0.0) * x)
        x = torch.cat([x, skips.pop()], dim=1)
    weight, bias = decoder.colour.weight, decoder.colour.bias
    if preset == "paper":
        x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
        return F.conv2d(x, weight, bias)
    x = x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    return F.conv2d(x, weight, bias, padding=1)
