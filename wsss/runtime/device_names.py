"""Names of devices; apart from what uses them, as the configuration is read without PyTorch."""

from __future__ import annotations

import re

DEVICES = "auto, cpu, cuda, cuda:<number> or mps"
"""How messages put it."""


def is_device(name: str) -> bool:
    """Say whether `name` can name a device, here or elsewhere."""
    return re.fullmatch(r"auto|cpu|mps|cuda(:(0|[1-9][0-9]{0,3}))?", name, re.ASCII) is not None
