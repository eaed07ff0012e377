"""MS-COCO's masks as a step of a run: drawn into the data set's folder where they are not yet.

The folder belongs to every run on that data set, and moves with it; a run keeps only a record.
"""

from __future__ import annotations

from pathlib import Path

from wsss.data.formats.coco import (
    CATEGORIES,
    MASKS,
    CocoSettings,
    mask_fingerprint,
    rasterise_masks,
)
from wsss.files import write_text
from wsss.files.marks import write_mark
from wsss.files.temporaries import remove_leftovers
from wsss.runtime.locks import output_lock

STAMP = "annotations.txt"
"""In the masks' folder: fingerprint of the annotations and the rule they were drawn by."""

# Another run's drawing takes minutes, and saves this one its own.
_WAIT_S = 3600.0


def draw_once(*, root: Path, output: Path | None = None, workers: int = 2) -> bool:
    """Draw the label PNGs of both sets, unless they are there from these annotations.

    Args:
        root: Folder with annotations/; the PNGs go to masks/ in it.
        output: Record to write in the end: a copy of masks/categories.json, the rule and the
            label values.
        workers: Processes that draw.

    Returns:
        Whether they were drawn now.

    Raises:
        UserError: An annotation file is missing or malformed, or the folder cannot be written.
    """
    folder = root / MASKS
    fingerprint = mask_fingerprint(CocoSettings(), root)
    drawn = False
    # Looked at first without the lock: where they are drawn, the folder may be read-only.
    if not _are_drawn(folder, fingerprint):
        # The stage's own lock is on its record, of which every run has one.
        with output_lock(folder, "coco-masks", wait_s=_WAIT_S) as locked:
            remove_leftovers(folder, alone=locked)
            drawn = not _are_drawn(folder, fingerprint)
            if drawn:
                rasterise_masks(root, workers=workers)
                write_mark(folder, also=(STAMP,))
                write_text(folder / STAMP, fingerprint + "\n")
    if output is not None:
        write_text(output, (folder / CATEGORIES).read_text(encoding="utf-8"))
    print(f"{folder}: " + ("drawn" if drawn else "already drawn from these annotations"))
    return drawn


def _are_drawn(folder: Path, fingerprint: str) -> bool:
    return (folder / CATEGORIES).is_file() and _read(folder / STAMP) == fingerprint


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return ""
