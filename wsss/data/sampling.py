"""The fixed sample of images that pictures show."""

from __future__ import annotations

from collections.abc import Sequence

from wsss.data.index import ImageRecord, Index
from wsss.errors import UserError


def sample_records(
    index: Index, *, split: str, names: Sequence[str] = (), count: int | None = None
) -> Sequence[ImageRecord]:
    """Return the named images of the split, or `count` evenly spaced through its sorted names.

    Args:
        index: All images.
        split: Image set to choose from.
        names: Images to take, in this order; empty: the choice is made by `count`.
        count: How many images; None: all.

    Raises:
        UserError: The split has no images, or a name is not in it.
    """
    records = index.subset(split).records
    if names:
        known = {name: records.names.position(name) for name in names}
        unknown = [name for name, position in known.items() if position is None]
        if unknown:
            raise UserError(
                f"these images are not in split '{split}': {', '.join(unknown[:50])}",
                expected=f"names of its {len(records)} images, without suffix",
            )
        return [records[position] for name in names if (position := known[name]) is not None]
    if count is None or count >= len(records):
        return records
    # The middle of each of `count` equal parts: neither always the first nor always the last.
    return [records[(2 * i + 1) * len(records) // (2 * count)] for i in range(count)]


def shown_records(
    index: Index, *, split: str, names: Sequence[str], count: int
) -> Sequence[ImageRecord]:
    """Return those named images that are in the split; where none is, `count` as a sample.

    One list of names serves pictures of several splits.

    Args:
        index: All images.
        split: Image set to choose from.
        names: Images of any split, in this order.
        count: How many images, where no named one is in the split.

    Raises:
        UserError: The split has no images, or there is no image of a name in any split.
    """
    everywhere = index.records.names
    unknown = [name for name in names if name not in everywhere]
    if unknown:
        raise UserError(
            f"these images are not in the index: {', '.join(unknown[:50])}",
            expected="names of images, without suffix",
        )
    here = index.subset(split).records.names
    return sample_records(
        index, split=split, names=[name for name in names if name in here], count=count
    )
