"""Checks and scores that the IRN stages share."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from wsss.data.index import Index, Records
from wsss.errors import UserError, listed
from wsss.maps.background import winner
from wsss.maps.map_store import MapStore


def check_store(store: MapStore, index: Index, records: Records, path: Path) -> None:
    """Check that the CAM store is of this index and holds all of `records`.

    Raises:
        UserError: Other classes, or images without CAMs.
    """
    if store.classes != index.classes:
        raise UserError(
            f"the CAMs are of the classes {', '.join(store.classes)}",
            where=path,
            expected=", ".join(index.classes),
            fix="export the CAMs again with a model trained on this index",
        )
    missing = [name for name in records.names if name not in store.names]
    if missing:
        raise UserError(
            f"{len(missing)} of {len(records)} images have no CAMs: {listed(missing)}",
            where=path,
            fix="export the CAMs of this index again",
        )


def labelled_records(store: MapStore, index: Index, path: Path) -> Records:
    """Return the store's images in the index's order.

    Raises:
        UserError: The index lacks some of them.
    """
    known = index.records.names
    records = index.records.take(known.found_in(store.names))
    if len(records) != len(store.names):
        unknown = [name for name in store.names if name not in known]
        raise UserError(
            f"{len(unknown)} images with CAMs are not in the index, {unknown[0]} among them",
            where=path,
            fix="export the CAMs of this index again",
        )
    return records


def label_values(scores: np.ndarray, background: float, class_indices: np.ndarray) -> np.ndarray:
    """Return the label of the largest score, background where none exceeds `background`.

    Args:
        scores: (K, H, W) float32, one map a tagged class.
        background: Background score; a tie with it is background.
        class_indices: (K,) positions in the class list; label = position + 1.

    Returns:
        (H, W) uint8.
    """
    values = np.concatenate([[0], np.asarray(class_indices) + 1]).astype(np.uint8)
    return np.asarray(values[winner(scores, background)])
