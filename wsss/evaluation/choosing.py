"""The stage that chooses the background scores which are `auto` from the CAMs, without masks."""

from __future__ import annotations

from pathlib import Path

from wsss.data.index import read_index
from wsss.errors import UserError, listed
from wsss.maps.background_choice import METHOD, choose_score
from wsss.maps.chosen import chosen_entry, write_chosen
from wsss.maps.map_store import MapStore
from wsss.runtime.progress import progress


def choose_thresholds(*, cams: Path, index: Path, output: Path) -> None:
    """Choose the background score of CAMs, and by it those of sure object and sure background.

    Args:
        cams: Map store of the CAMs.
        index: index.csv; the maps of its training set choose.
        output: JSON of chosen scores to write.

    Raises:
        UserError: An image of the training set has no maps.
    """
    names = read_index(index).training_set().records.names
    with MapStore(cams) as store:
        missing = [name for name in names if name not in store.names]
        if missing:
            raise UserError(
                f"{len(missing)} of {len(names)} training images have no CAMs: {listed(missing)}",
                where=cams,
                fix="export the CAMs of this index again",
            )
        shown = progress(names, total=len(names), description="choose thresholds")
        score, share = choose_score(store.read(name).maps for name in shown)
    entry = chosen_entry(
        "cam", score, method=METHOD, images=len(names), object_share=round(share, 6)
    )
    write_chosen(output, {"cam": entry})
    print(
        f"the CAMs of {len(names)} images part at {score:g}: {share:.1%} of the pixels are object"
    )
    for key, value in entry["settings"].items():
        print(f"  {key} auto: {value:g}")
