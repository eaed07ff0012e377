"""A few training pictures as the network sees them, drawn for TensorBoard between epochs.

They only tell: the network is left in the modes that it was in, no random stream is drawn from, and
none of this is in the hash of the code.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from wsss.data import drawing
from wsss.data.loader import EpochDataset, Sample, random_generator

# Few and small, so that they cost a fraction of an epoch and an event file stays one to copy.
PICTURES = 4
PANEL_PX = 256

# From a sample and its crop, (S, S, 3) uint8 RGB, to pictures with a title each.
Draw = Callable[[Sample, drawing.Picture], Iterable[tuple[str, drawing.Picture]]]


class TrainingPictures:
    """The same few crops whenever they are asked for, spread over the training set.

    Args:
        network: What is looked at; `draw` finds it in eval mode, without gradient.
        dataset: What is trained on.
        draw: What to show beside a crop.
    """

    def __init__(self, network: nn.Module, dataset: EpochDataset, draw: Draw) -> None:
        self._network, self._dataset, self._draw = network, dataset, draw
        self._samples: dict[str, Sample] = {}

    def drawn(self) -> dict[str, bytes]:
        """Return a JPEG by the name of its image: the crop, and what `draw` shows beside it."""
        if not self._samples:
            self._samples = dict(self._load())
        with _in_use(self._network), torch.no_grad():
            return {name: self._jpeg(sample) for name, sample in self._samples.items()}

    def _load(self) -> Iterator[tuple[str, Any]]:
        count = len(self._dataset.names)
        few = min(PICTURES, count)
        for position in (i * count // few for i in range(few)):
            name = self._dataset.names[position]
            # A generator of its own: the same crop every time, and no draw of the training's.
            yield name, self._dataset.load(position, random_generator("pictures", name))

    def _jpeg(self, sample: Sample) -> bytes:
        crop = _pixels(sample["image"])
        panels = [("image", crop), *self._draw(sample, crop)]
        small = [drawing.titled(drawing.resized(each, PANEL_PX), title) for title, each in panels]
        buffer = io.BytesIO()
        Image.fromarray(drawing.beside(small)).save(buffer, format="JPEG", quality=85)
        return buffer.getvalue()


def _pixels(image: Tensor) -> Any:
    """Return (3, S, S) float in 0..1 as (S, S, 3) uint8."""
    return image.clamp(0, 1).mul(255).round().to(torch.uint8).permute(1, 2, 0).numpy().copy()


@contextmanager
def _in_use(network: nn.Module) -> Iterator[None]:
    """Put a network into eval mode, and each of its parts back into its own mode afterwards."""
    modes = [(part, part.training) for part in network.modules()]
    network.eval()
    try:
        yield
    finally:
        # Not by `train`, which frozen parts answer in their own way.
        for part, mode in modes:
            part.training = mode
