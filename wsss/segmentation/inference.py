"""Class probabilities of whole images: several scales, each mirrored, averaged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wsss.data.transforms import image_to_tensor, normalise, resize
from wsss.models.backbones import Normalisation
from wsss.models.deeplab import DeepLab
from wsss.models.lean import lean_network
from wsss.runtime.compute import cast_to, convolution_dtype
from wsss.runtime.settings import Precision


@dataclass(frozen=True)
class Views:
    """An image at all scales, on the CPU.

    Attributes:
        size: (H, W) of the image.
        images: One (3, h, w) uint8 tensor a scale.
    """

    size: tuple[int, int]
    images: tuple[Tensor, ...]


def views_of(
    picture: npt.NDArray[np.uint8], scales: Sequence[float], long_side_limit_px: int | None = None
) -> Views:
    """Resize a picture (H, W, 3) uint8 RGB to each scale; needs no device, so it can run ahead.

    Scales are of the picture, or of what it is reduced to where its long side is over the limit.
    """
    image = image_to_tensor(picture)
    height, width = image.shape[1:]
    limit = long_side_limit_px
    reduced = 1.0 if limit is None else min(1.0, limit / max(height, width))
    factors = [scale * reduced for scale in scales]
    sizes = [(max(1, round(height * f)), max(1, round(width * f))) for f in factors]
    return Views((height, width), tuple(resize(image, size) for size in sizes))


def pad_to_multiple(image: Tensor, stride: int) -> Tensor:
    """Pad (B, C, H, W) with zeros at the right and bottom to multiples of `stride`."""
    height, width = image.shape[2:]
    return F.pad(image, (0, -width % stride, 0, -height % stride))


@dataclass(frozen=True)
class Segmenter:
    """A trained network as it is applied to whole images; `segmenter` makes one.

    Attributes:
        network: Normalised images (B, 3, h, w) to logits; in eval mode, on `device`.
        normalisation: Of the images.
        padding_stride: What both sides of an image are padded to a multiple of.
        device: Where the network is.
        dtype: What its convolutions compute in.
        window_px: Images with a longer side go through it in windows of this side; None: whole.
    """

    network: nn.Module
    normalisation: Normalisation
    padding_stride: int
    device: torch.device
    dtype: torch.dtype
    window_px: int | None = None

    def logits(self, image: Tensor) -> Tensor:
        """Return the network's logits in float32."""
        with cast_to(self.device, self.dtype):
            logits: Tensor = self.network(image)
        return logits.float()


def segmenter(
    network: DeepLab, *, precision: Precision, device: torch.device, window_px: int | None = None
) -> Segmenter:
    """Bring a trained network to a device in the form that is applied fastest.

    Args:
        network: It is taken apart: do not use it after.
        precision: Type of the network's arithmetic.
        device: Where to compute.
        window_px: Side of the windows in which larger images go through it; None: whole.
    """
    network.to(device).to(memory_format=torch.channels_last).eval()
    dtype = convolution_dtype(device, precision)
    normalisation, stride = network.backbone.normalisation, network.padding_stride
    lean = lean_network(network, dtype=dtype)
    return Segmenter(lean, normalisation, stride, device, dtype, window_px)


def window_starts(length: int, window: int) -> list[int]:
    """Return where windows begin along one side: evenly spaced, a third of each shared or more."""
    if length <= window:
        return [0]
    gaps = -(-3 * (length - window) // (2 * window))
    return [round(position * (length - window) / gaps) for position in range(gaps + 1)]


def image_logits(segments: Segmenter, image: Tensor) -> Tensor:
    """Return the logits of normalised images (B, 3, h, w) at their size, (B, n_labels, h, w).

    With windows the mean over those that a pixel lies in, as segmentation networks with a crop of
    fixed size are commonly applied.
    """
    height, width = image.shape[2:]
    window = segments.window_px
    if window is None or max(height, width) <= window:
        return _whole_logits(segments, image)
    total: Tensor | None = None
    seen = image.new_zeros(1, 1, height, width)
    for top in window_starts(height, window):
        for left in window_starts(width, window):
            part = (..., slice(top, top + window), slice(left, left + window))
            logits = _whole_logits(segments, image[part])
            if total is None:
                total = logits.new_zeros(*logits.shape[:2], height, width)
            total[part] += logits
            seen[part] += 1
    assert total is not None
    return total.div_(seen)


def _whole_logits(segments: Segmenter, image: Tensor) -> Tensor:
    height, width = image.shape[2:]
    padded = pad_to_multiple(image, segments.padding_stride)
    logits = segments.logits(padded.contiguous(memory_format=torch.channels_last))
    # First to the size of what was padded, so that the padding can be cut off exactly.
    logits = F.interpolate(logits, size=padded.shape[2:], mode="bilinear", align_corners=False)
    return logits[..., :height, :width]


def view_probabilities(segments: Segmenter, image: Tensor, size: tuple[int, int]) -> Tensor:
    """Return the probabilities of normalised images at another size.

    Args:
        segments: What gives the logits.
        image: (B, 3, h, w) float, normalised.
        size: (H, W) of the result.

    Returns:
        (B, n_labels, H, W) float32, summing to 1 over the labels.
    """
    logits = image_logits(segments, image)
    if logits.shape[2:] != size:
        logits = F.interpolate(logits, size=size, mode="bilinear", align_corners=False)
    return logits.softmax(dim=1)


@torch.inference_mode()
def class_probabilities(segments: Segmenter, views: Views, *, mirror: bool) -> Tensor:
    """Return the mean probabilities over scales and mirror images.

    Args:
        segments: The trained network.
        views: The image at all scales.
        mirror: See every scale mirrored too.

    Returns:
        (n_labels, H, W) float32 on the device, at the image's size.
    """
    total: Tensor | None = None
    for view in views.images:
        image = view.to(segments.device)[None].float().div_(255)
        image = normalise(image, segments.normalisation)
        if mirror:
            image = torch.cat([image, image.flip(-1)])
        # The mirror image along with its view keeps a GPU busy; on a CPU the two would push each
        # other out of the caches.
        parts = (image,) if segments.device.type == "cuda" else image.chunk(len(image))
        found = [view_probabilities(segments, part, views.size) for part in parts]
        probabilities = found[0] if len(found) == 1 else torch.cat(found)
        if mirror:
            probabilities = (probabilities[:1] + probabilities[1:].flip(-1)) / 2
        total = probabilities[0] if total is None else total + probabilities[0]
    if total is None:
        raise ValueError("no views")
    return total / len(views.images)
