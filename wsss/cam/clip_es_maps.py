"""CLIP-ES's class maps of a picture: text and image encoder put together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from wsss.cam.clip_es import balance_, grad_cam, min_max, refine
from wsss.models.clip import CLIP_NORMALISATION, Clip


@dataclass(frozen=True)
class ClipEsOptions:
    """How maps are computed; the defaults are those published for VOC.

    Attributes:
        attention_layers: The attention of so many last blocks is averaged.
        box_threshold: Share of a map's largest value that its boxes are drawn around.
        refine: Whether maps are spread by the attention.
        published: Whether to keep what is taken for oversights of the public code: positions
            rounded to float16, boxes that never reach the last row and column.
        long_side_limit_px: A picture with a longer side is reduced to it.
    """

    attention_layers: int = 8
    box_threshold: float = 0.4
    refine: bool = True
    published: bool = False
    long_side_limit_px: int = 1024


def network_size(size: tuple[int, int], patch_px: int, limit_px: int) -> tuple[int, int]:
    """Return (height, width) that a picture is stretched to: whole patches, rounded up.

    Args:
        size: (H, W) of the picture.
        patch_px: Side of a patch.
        limit_px: The long side is reduced to it first.
    """
    factor = min(1.0, limit_px / max(size))
    # A side that was reduced is whole but for rounding, which must not add a patch.
    height, width = (max(1, -(-round(side * factor, 3) // patch_px)) * patch_px for side in size)
    return int(height), int(width)


def network_input(image: np.ndarray, size: tuple[int, int]) -> Tensor:
    """Stretch a picture (H, W, 3) uint8 and normalise it.

    By Pillow's bicubic resizing of 8-bit values, as the public code does: the tensors' own differs
    by a grey level here and there.

    Returns:
        (3, height, width) float32.
    """
    height, width = size
    stretched = Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC)
    values = torch.from_numpy(np.array(stretched)).permute(2, 0, 1).to(torch.float32) / 255
    mean = torch.tensor(CLIP_NORMALISATION.mean).view(3, 1, 1)
    return (values - mean) / torch.tensor(CLIP_NORMALISATION.std).view(3, 1, 1)


@dataclass(frozen=True)
class ClipEs:
    """CLIP and what it knows of the classes.

    Attributes:
        clip: The two encoders.
        class_texts: (classes, D) float32, an embedding of length 1 for each class.
        background_texts: (words, D) float32; of background.
        options: How maps are computed.
    """

    clip: Clip
    class_texts: Tensor
    background_texts: Tensor
    options: ClipEsOptions

    def input(self, image: np.ndarray) -> Tensor:
        """Return a picture (H, W, 3) uint8 as the network takes it, (3, h, w) float32."""
        size = network_size(
            (image.shape[0], image.shape[1]),
            self.clip.patch_px,
            self.options.long_side_limit_px,
        )
        return network_input(image, size)

    @torch.inference_mode(False)
    def maps(self, network_input: Tensor, class_indices: Sequence[int]) -> Tensor:
        """Return the maps of a picture's tagged classes, normalised each.

        Gradients are taken here whatever the caller's mode.

        Args:
            network_input: (3, H, W) float32, of `input`, on the encoders' device.
            class_indices: K positions in the class list.

        Returns:
            (K, h, w) float32 in 0..1, a value a patch.
        """
        options, clip = self.options, self.clip
        # Only tagged classes and background compete.
        tagged = self.class_texts[list(class_indices)]
        read = clip.image_tokens(
            # Made within inference mode, it could not be part of a gradient.
            network_input.clone(),
            attention_layers=options.attention_layers if options.refine else 0,
            half_positions=options.published,
        )
        texts = torch.cat([tagged, self.background_texts])
        seen = clip.class_gradients(read.tokens, texts, len(tagged))
        with torch.autocast(clip.device.type, enabled=False):
            maps = grad_cam(seen.activation, seen.weights, read.grid)
            if read.attention is None:
                return maps
            refined = refine(
                maps,
                balance_(read.attention),
                threshold=options.box_threshold,
                far_edge=not options.published,
            )
            return min_max(refined)
