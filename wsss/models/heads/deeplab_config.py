"""Settings of DeepLab's heads: V3+ (ECCV 2018), LargeFOV (ICLR 2015) and V2 (PAMI 2018)."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from pydantic import model_validator

from wsss.models.heads.registry import HEADS, HeadSettings, SegmentationHead
from wsss.runtime.settings import BelowOne, Count, impossible


class DilatedSettings(HeadSettings):
    """What has dilated convolutions; those published are for stride 8, of V3+ for 16."""

    published: ClassVar[tuple[int, ...]]

    rates: tuple[Count, ...] = ()
    """Dilations; empty: 6, 12, 18 (v3plus), 12 (largefov), 6, 12, 18, 24 (v2)."""

    def dilations(self) -> tuple[int, ...]:
        """Return the dilations in use."""
        return self.rates or self.published


class WideSettings(DilatedSettings):
    """What has hidden layers before its classifier."""

    channels: Count = 128
    """Width of the ASPP and the decoder (v3plus), or of the dilated convolution (largefov)."""
    dropout: BelowOne = 0.1
    """Rate before the classifier (v3plus, largefov)."""


class V3PlusSettings(WideSettings):
    """Settings of DeepLabV3+."""

    published = (6, 12, 18)

    name: Literal["v3plus"] = "v3plus"
    """ASPP and decoder."""
    low_level_channels: Count = 32
    """Width of the stride-4 feature that the decoder joins (v3plus)."""


class LargeFovSettings(WideSettings):
    """Settings of DeepLab-LargeFOV."""

    published = (12,)

    name: Literal["largefov"] = "largefov"
    """One dilated convolution."""

    @model_validator(mode="after")
    def _one_rate(self) -> Self:
        if len(self.rates) > 1:
            raise impossible(
                f"head.rates are {self.rates} for largefov",
                key="rates",
                expected="one dilation, such as 12",
            )
        return self


class V2Settings(DilatedSettings):
    """Settings of DeepLabV2."""

    published = (6, 12, 18, 24)

    name: Literal["v2"] = "v2"
    """Sum of four dilated convolutions."""


for _head in (
    SegmentationHead(
        name="v3plus",
        description="ASPP and decoder",
        settings=V3PlusSettings,
        build="wsss.models.heads.deeplab:V3PlusHead",
    ),
    SegmentationHead(
        name="largefov",
        description="one dilated convolution",
        settings=LargeFovSettings,
        build="wsss.models.heads.deeplab:LargeFovHead",
    ),
    SegmentationHead(
        name="v2",
        description="sum of four",
        settings=V2Settings,
        build="wsss.models.heads.deeplab:V2Head",
    ),
):
    HEADS.register(_head)
