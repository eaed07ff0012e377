"""Settings of the DeepLab heads; apart from the networks, so that reading them needs no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from wsss.errors import UserError

Head = Literal["v3plus", "largefov", "v2"]
# Dilations at output stride 8 (LargeFOV, V2) and 16 (V3+), as published.
RATES: dict[str, tuple[int, ...]] = {
    "v3plus": (6, 12, 18),
    "largefov": (12,),
    "v2": (6, 12, 18, 24),
}


@dataclass(frozen=True)
class HeadConfig:
    """Which segmentation head, and its size."""

    name: Head = "v3plus"
    """`v3plus` (ASPP and decoder), `largefov` (one dilated convolution), `v2` (sum of four)."""
    channels: int = 128
    """Width of the ASPP and the decoder (v3plus), or of the dilated convolution (largefov)."""
    low_level_channels: int = 32
    """Width of the stride-4 feature that the decoder joins (v3plus)."""
    rates: tuple[int, ...] = ()
    """Dilations; empty: 6, 12, 18 (v3plus), 12 (largefov), 6, 12, 18, 24 (v2)."""
    dropout: float = 0.1
    """Rate before the classifier (v3plus, largefov)."""

    def __post_init__(self) -> None:
        for key in ("channels", "low_level_channels"):
            if getattr(self, key) < 1:
                raise UserError(
                    f"head.{key} is {getattr(self, key)}",
                    where=f"head.{key}",
                    expected="at least 1",
                )
        if any(rate < 1 for rate in self.rates):
            raise UserError(
                f"head.rates are {self.rates}",
                where="head.rates",
                expected="dilations of at least 1",
            )
        if self.name == "largefov" and len(self.rates) > 1:
            raise UserError(
                f"head.rates are {self.rates} for largefov",
                where="head.rates",
                expected="one dilation, such as 12",
            )
        if not 0.0 <= self.dropout < 1.0:
            raise UserError(
                f"head.dropout is {self.dropout}",
                where="head.dropout",
                expected="0 <= dropout < 1",
            )

    def dilations(self) -> tuple[int, ...]:
        """Return the dilations in use."""
        return self.rates or RATES[self.name]
