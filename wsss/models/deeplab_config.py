"""Settings of the DeepLab heads; apart from the networks, so that reading them needs no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import model_validator

from wsss.runtime.settings import BelowOne, Count, Settings, impossible

Head = Literal["v3plus", "largefov", "v2"]
# Dilations at output stride 8 (LargeFOV, V2) and 16 (V3+), as published.
RATES: dict[str, tuple[int, ...]] = {
    "v3plus": (6, 12, 18),
    "largefov": (12,),
    "v2": (6, 12, 18, 24),
}


class HeadConfig(Settings):
    """Which segmentation head, and its size."""

    name: Head = "v3plus"
    """`v3plus` (ASPP and decoder), `largefov` (one dilated convolution), `v2` (sum of four)."""
    channels: Count = 128
    """Width of the ASPP and the decoder (v3plus), or of the dilated convolution (largefov)."""
    low_level_channels: Count = 32
    """Width of the stride-4 feature that the decoder joins (v3plus)."""
    rates: tuple[Count, ...] = ()
    """Dilations; empty: 6, 12, 18 (v3plus), 12 (largefov), 6, 12, 18, 24 (v2)."""
    dropout: BelowOne = 0.1
    """Rate before the classifier (v3plus, largefov)."""

    @classmethod
    def idle(cls, values: Mapping[str, Any]) -> Mapping[str, str]:
        """The widths and the dropout of the larger heads are none of the smaller ones'."""
        head = values.get("name", "v3plus")
        unused = {
            "largefov": ("low_level_channels",),
            "v2": ("channels", "low_level_channels", "dropout"),
        }
        return dict.fromkeys(unused.get(head, ()), f"the head '{head}' has none")

    @model_validator(mode="after")
    def _one_rate_of_largefov(self) -> Self:
        if self.name == "largefov" and len(self.rates) > 1:
            raise impossible(
                f"head.rates are {self.rates} for largefov",
                key="rates",
                expected="one dilation, such as 12",
            )
        return self

    def dilations(self) -> tuple[int, ...]:
        """Return the dilations in use."""
        return self.rates or RATES[self.name]
