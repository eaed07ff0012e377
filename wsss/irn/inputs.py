"""Checks and scores that the IRN stages share."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from wsss.data.index import Index, Mask
from wsss.errors import UserError, listed
from wsss.maps.background import winner
from wsss.maps.map_store import MapStore
from wsss.runtime.names import Positions


def check_store(store: MapStore, index: Index, path: Path) -> Mask:
    """Check that the CAM store is of this index and holds all images that are trained on.

    Returns:
        Which images of the index are trained on, (N,).

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
    trained = index.trained()
    lacking = np.flatnonzero(trained & ~index.records.names.found_in(store.names))
    if len(lacking):
        raise UserError(
            f"{len(lacking)} of {trained.sum()} images have no CAMs: "
            f"{listed(index.records.names.take(lacking))}",
            where=path,
            fix="export the CAMs of this index again",
        )
    return trained


def labelled(store: MapStore, index: Index, path: Path) -> Positions:
    """Return where the store's images stand in the index, in its order.

    Raises:
        UserError: The index lacks some of them.
    """
    known = index.records.names
    positions = np.flatnonzero(known.found_in(store.names))
    if len(positions) != len(store.names):
        unknown = [name for name in store.names if name not in known]
        raise UserError(
            f"{len(unknown)} images with CAMs are not in the index, {unknown[0]} among them",
            where=path,
            fix="export the CAMs of this index again",
        )
    return positions


def narrowed(store: MapStore, index: Index, chosen: Positions) -> Index:
    """Return a part of the index; the store knows its images alone from here on."""
    part = index.part(chosen)
    store.keep(part.records.names)
    return part


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
