"""The demo data as a format: a plain folder that is generated where it is not there yet."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from wsss.data.fingerprints import combined
from wsss.data.formats.folder import FolderSettings, find_folder_masks, list_folder
from wsss.data.formats.registry import FORMATS, DataFormat, IndexSettings
from wsss.data.index import Index
from wsss.data.listing import FoundMasks, Listing


class DemoSettings(IndexSettings):
    """The demo has no settings."""

    format: Literal["demo"] = "demo"
    """The generated demo."""


def _list(settings: DemoSettings, root: Path) -> Listing:
    return list_folder(FolderSettings(), root)


def _masks(settings: DemoSettings, root: Path, index: Index) -> FoundMasks:
    return find_folder_masks(FolderSettings(), root, index)


FORMATS.register(
    DataFormat(
        name="demo",
        description="pictures that are generated",
        fixed_classes=True,
        settings=DemoSettings,
        list_images=_list,
        find_masks=_masks,
        # The pictures follow from the generator alone.
        list_fingerprint=lambda settings, root: combined("demo"),
        mask_fingerprint=lambda settings, root: combined("demo masks"),
        generator="wsss.data.formats.demo_pictures:generate_demo",
    )
)
