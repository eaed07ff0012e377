"""What a shard of the label stages reads and keeps: its own part, whole batches of it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from wsss.data.index import ImageRecord, Records
from wsss.irn.pseudo_labels import batches_of, shard_in_batches
from wsss.maps.shards import Shard


def _records(widths: Sequence[int]) -> Records:
    return Records(
        ImageRecord(f"p{number:03}", ("train",), ("cat",), width, 4, f"p{number:03}.png")
        for number, width in enumerate(widths)
    )


def _naive_batches(widths: Sequence[int], size: int) -> list[list[str]]:
    found: list[list[str]] = []
    last = None
    for number, width in enumerate(widths):
        if width != last or len(found[-1]) == size:
            found.append([])
        found[-1].append(f"p{number:03}")
        last = width
    return found


WIDTHS = [[], [5], [5] * 17, [5, 6, 5, 6], [5] * 3 + [6] * 8 + [7] + [5] * 9 + [6] * 2]


@pytest.mark.parametrize("widths", WIDTHS)
@pytest.mark.parametrize("size", [1, 3, 8])
def test_batches_are_neighbours_of_one_size(widths: list[int], size: int) -> None:
    found = [[record.name for record in batch] for batch in batches_of(_records(widths), size)]
    assert found == _naive_batches(widths, size)


@pytest.mark.parametrize("widths", WIDTHS)
@pytest.mark.parametrize("size", [1, 3, 8])
@pytest.mark.parametrize("total", [1, 2, 5, 30])
def test_a_shard_has_the_batches_that_one_job_has(widths: list[int], size: int, total: int) -> None:
    records = _records(widths)
    whole = _naive_batches(widths, size)
    for number in range(1, total + 1):
        shard = Shard(number, total)
        part = records.take(np.arange(len(records))[shard_in_batches(shard, records.sizes(), size)])
        found = [[record.name for record in batch] for batch in batches_of(part, size)]
        assert found == shard.of(whole)
