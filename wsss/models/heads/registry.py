"""Segmentation heads by name: a record of each, which names its settings and its code.

A head registers itself in a module `<name>_config.py` of this package, or in a file that `plugins:`
of the configuration names; neither imports PyTorch.
"""

from __future__ import annotations

from dataclasses import dataclass

from wsss.runtime.registry import Record, Registry
from wsss.runtime.settings import Settings


class HeadSettings(Settings):
    """Settings of a segmentation head; each adds its own to these."""

    name: str
    """The head, by its name in the registry."""


@dataclass(frozen=True)
class SegmentationHead(Record):
    """What there is to know of a segmentation head.

    Attributes:
        build: Its module, as `module:name`, called with the backbone, the number of labels and its
            settings; from the backbone's features to logits (B, labels, h, w).
    """

    build: str


HEADS: Registry[SegmentationHead] = Registry(
    "segmentation head",
    about="The segmentation head.",
    key="name",
    default="v3plus",
    package="wsss.models.heads",
    suffix="_config",
)
