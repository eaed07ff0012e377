"""A vision transformer of timm as a backbone: features of chosen blocks, frozen or trained."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wsss.errors import UserError
from wsss.models.backbones import Backbone, is_vit, known_to_timm, timm_normalisation
from wsss.models.config import BackboneConfig
from wsss.models.kept_features import FeatureStore, state_digest
from wsss.provenance import closure_hash


class VitFeatures(nn.Module):
    """Features of a transformer's blocks as maps, for pictures of any size.

    Args:
        name: A model of timm that is a plain transformer.
        layers: Blocks whose output is wanted, counted from 0, ascending; negative: from the end;
            empty: the last one.
        frozen: Whether its weights stay as they are: it computes without gradients, which costs a
            training no memory, and stays in eval mode.
        weights_file: Weights as timm names them; None: random.

    Attributes:
        layers: The blocks, counted from 0.
        patch_px: Side of a patch.
        channels: Channels of each feature.
        kept: Where features of pictures are kept, of a frozen one; None: nowhere.

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
        self.kept: FeatureStore | None = None
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
        if self.kept is not None and self.frozen:
            return self.kept.features(x, self._features)
        return self._features(x)

    def _features(self, x: Tensor) -> list[Tensor]:
        padded = F.pad(x, (0, -x.shape[-1] % self.patch_px, 0, -x.shape[-2] % self.patch_px))
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            features: list[Tensor] = self.body.forward_intermediates(
                padded, indices=list(self.layers), norm=True, intermediates_only=True
            )
        return features


def keep_features(
    body: VitFeatures, folder: Path, limit_bytes: int, *, processes: int = 1
) -> FeatureStore:
    """Keep the features of a frozen transformer's pictures from now on.

    Args:
        body: The transformer, with its final weights.
        folder: Where to keep them.
        limit_bytes: How much to keep at most.
        processes: How many of a training share that.
    """
    identity = {
        "weights": state_digest(body),
        "layers": list(body.layers),
        "code": closure_hash(__name__),
        "libraries": [version("timm"), torch.__version__],
    }
    body.kept = FeatureStore(folder, identity, limit_bytes, processes=processes)
    return body.kept


def _create(name: str, weights_file: Path | None) -> Any:
    import timm  # here, as what only looks for such networks needs none

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


def build(config: BackboneConfig, weights_file: Path | None) -> Backbone:
    """Build a plain vision transformer as a backbone, which has one stride: its patch.

    Raises:
        UserError: It is another kind of network, a block that there is not, or a file that does
            not fit.
    """
    if not is_vit(config.name):
        known_to_timm(config.name)
        raise UserError(
            f"backbone.output_stride is null, and {config.name} is no plain vision transformer",
            where="backbone.output_stride",
            expected="4, 8, 16 or 32, or a network such as vit_small_patch14_dinov2.lvd142m",
        )
    body = VitFeatures(
        config.name, layers=config.layers, frozen=config.frozen, weights_file=weights_file
    )
    return Backbone(
        body,
        channels=body.channels,
        strides=(body.patch_px,) * len(body.channels),
        normalisation=timm_normalisation(config.name),
    )
