"""Settings of the light heads on a vision transformer's features."""

from __future__ import annotations

from typing import Literal

from wsss.models.heads.registry import HEADS, HeadSettings, SegmentationHead
from wsss.runtime.settings import BelowOne, Count


class LinearSettings(HeadSettings):
    """Settings of the linear head."""

    name: Literal["linear"] = "linear"
    """BatchNorm and one 1x1 convolution on the features side by side."""
    dropout: BelowOne = 0.1
    """Rate before the classifier."""


class PyramidSettings(HeadSettings):
    """Settings of the pyramid."""

    name: Literal["fpn"] = "fpn"
    """Features of one stride at four sizes, added up from coarse to fine."""
    channels: Count = 128
    """Width of the pyramid."""
    dropout: BelowOne = 0.1
    """Rate before the classifier."""


for _head in (
    SegmentationHead(
        name="linear",
        description="one convolution on a transformer's features",
        settings=LinearSettings,
        build="wsss.models.heads.tokens:LinearHead",
    ),
    SegmentationHead(
        name="fpn",
        description="a pyramid of a transformer's features",
        settings=PyramidSettings,
        build="wsss.models.heads.tokens:PyramidHead",
    ),
):
    HEADS.register(_head)
