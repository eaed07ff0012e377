"""A vision transformer of timm as a backbone: features of chosen blocks, frozen or trained."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wsss.errors import UserError


def is_vit(name: str) -> bool:
    """Say whether timm's model `name` is a plain transformer: patches of one size, no pyramid."""
    if not timm.is_model(name):
        return False
    with torch.device("meta"):
        model = timm.create_model(name, pretrained=False, num_classes=0)
    return all(hasattr(model, part) for part in ("blocks", "patch_embed", "embed_dim")) and hasattr(
        model, "forward_intermediates"
    )


class VitFeatures(nn.Module):
    """Features of a transformer's blocks as maps, for pictures of any size.

    Args:
        name: A model of timm for which `is_vit` holds.
        layers: Blocks whose output is wanted, counted from 0, ascending; negative: from the end;
            empty: the last one.
        frozen: Whether its weights stay as they are: it computes without gradients, which costs a
            training no memory, and stays in eval mode.
        weights_file: Weights as timm names them; None: random.

    Attributes:
        layers: The blocks, counted from 0.
        patch_px: Side of a patch.
        channels: Channels of each feature.

    Raises:
        UserError: A block that there is not, or a file that does not fit.
    """

    def __init__(
        self,
        name: str,
        *,
        layers: Sequence[int] = (),
        frozen: bool = False,
        weights_file: Path | None = None,
    ) -> None:
        super().__init__()
        self.body: Any = _create(name, weights_file)
        depth = len(self.body.blocks)
        wanted = [layer + depth if layer < 0 else layer for layer in layers or (-1,)]
        if wanted != sorted(set(wanted)) or wanted[0] < 0 or wanted[-1] >= depth:
            raise UserError(
                f"backbone.layers are {list(layers)}",
                expected=f"blocks of {name}, ascending, 0 to {depth - 1} or -{depth} to -1",
            )
        self.layers = tuple(wanted)
        height, width = self.body.patch_embed.patch_size
        if height != width:
            raise UserError(f"{name} has patches of {width} x {height} px", expected="squares")
        self.patch_px = int(height)
        self.channels = (int(self.body.embed_dim),) * len(self.layers)
        self.frozen = frozen
        if frozen:
            self.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> Self:
        """Set the mode; frozen, it stays in eval mode."""
        return super().train(mode and not self.frozen)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return the blocks' features, the final norm applied to each.

        Args:
            x: float (B, 3, H, W), normalised; padded with zeros at the right and the bottom where
                a side is no multiple of the patch.

        Returns:
            A float (B, channels, ceil(H / patch), ceil(W / patch)) for each of `layers`.
        """
        padded = F.pad(x, (0, -x.shape[-1] % self.patch_px, 0, -x.shape[-2] % self.patch_px))
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            features: list[Tensor] = self.body.forward_intermediates(
                padded, indices=list(self.layers), norm=True, intermediates_only=True
            )
        return features


def _create(name: str, weights_file: Path | None) -> Any:
    overlay = None if weights_file is None else {"file": str(weights_file)}
    try:
        return timm.create_model(
            name,
            pretrained=weights_file is not None,
            pretrained_cfg_overlay=overlay,
            num_classes=0,
            dynamic_img_size=True,
        )
    except (RuntimeError, KeyError, OSError, ValueError) as error:
        if weights_file is None:
            raise
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise UserError(
            f"these weights do not fit {name}: {' '.join(line.strip() for line in reason[:4])}",
            where=weights_file,
            fix="give the weight file of exactly this network, or another network's name",
        ) from None
