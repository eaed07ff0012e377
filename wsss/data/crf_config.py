"""Settings of the dense CRF, after predictions and over the labels that IRNet learns from."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from wsss.runtime.settings import Count, NonNegative, Number, Positive, Settings


class CrfConfig(Settings):
    """The dense CRF after prediction; defaults as public DeepLabV2 codes have them."""

    gaussian_sxy: Positive = 1.0
    """Width of the smoothness kernel, in pixels."""
    gaussian_compat: NonNegative = 3.0
    """Weight of the smoothness kernel."""
    bilateral_sxy: Positive = 67.0
    """Spatial width of the appearance kernel, in pixels."""
    bilateral_srgb: Positive = 3.0
    """Colour width of the appearance kernel, in grey levels."""
    bilateral_compat: NonNegative = 4.0
    """Weight of the appearance kernel."""
    iterations: Count = 10
    """Mean-field iterations."""


class LabelCrfConfig(Settings):
    """The dense CRF over confident labels; all values as in IRN's public code."""

    gt_prob: Annotated[Number, Field(gt=0, lt=1)] = 0.7
    """Probability that a pixel's own label is right, in the unary term."""
    gaussian_sxy: Positive = 3.0
    """Width of the smoothness kernel, in pixels."""
    gaussian_compat: NonNegative = 3.0
    """Weight of the smoothness kernel."""
    bilateral_sxy: Positive = 50.0
    """Spatial width of the appearance kernel, in pixels."""
    bilateral_srgb: Positive = 5.0
    """Colour width of the appearance kernel, in grey levels."""
    bilateral_compat: NonNegative = 10.0
    """Weight of the appearance kernel."""
    iterations: Count = 10
    """Mean-field iterations."""
