"""Data formats by name: a record of each, with the settings and the functions that it has.

A format registers itself in a module of this package, or in a file that `plugins:` of the
configuration names; neither imports PyTorch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from wsss.data.images import MOST_MEGAPIXELS
from wsss.data.index import Index
from wsss.data.listing import FoundMasks, Listing
from wsss.runtime.registry import Record, Registry
from wsss.runtime.settings import Positive, Settings


class IndexSettings(Settings):
    """Settings of the stage that reads a data set; each format has a subclass."""

    format: str

    max_megapixels: Annotated[Positive, Field(le=MOST_MEGAPIXELS)] = MOST_MEGAPIXELS
    """Pictures and masks of more megapixels are refused, before they are read; at most 178."""


@dataclass(frozen=True)
class DataFormat(Record):
    """What there is to know of a data format.

    The functions take the format's settings and the data root, which they read and never write.

    Attributes:
        list_images: Returns classes, images and what is wrong with them, opening no picture.
        find_masks: Takes the index too; returns the masks that there are, and what is wrong.
        list_fingerprint: Returns a hash of what defines the list and of the pictures' content;
            never of a time stamp, never of a mask.
        mask_fingerprint: Returns a hash of what defines the masks.
        source: What it is and where to get it, for the error that it is not there.
        generator: What draws the data, as `module:function`, for data that are generated where
            they are not there yet; both fingerprints are then constant.
        draws_masks: Whether its masks are drawn into the root by a step of the run.
        fixed_classes: Whether the format itself says which classes there are, and their order.
        recognise: Takes the data root; returns the settings that fit it, or None: it has another
            layout. Of one that is nearly this, it raises a `UserError` that says what is missing or
            broken. What `wsss init` asks.
    """

    list_images: Callable[[Any, Path], Listing]
    find_masks: Callable[[Any, Path, Index], FoundMasks]
    list_fingerprint: Callable[[Any, Path], str]
    mask_fingerprint: Callable[[Any, Path], str]
    source: str = "the data set"
    generator: str | None = None
    draws_masks: bool = False
    fixed_classes: bool = False
    recognise: Callable[[Path], Mapping[str, Any] | None] | None = None


FORMATS: Registry[DataFormat] = Registry(
    "data format",
    about="How the data set lies on disk and where its image-level tags come from.",
    key="format",
    package="wsss.data.formats",
)
