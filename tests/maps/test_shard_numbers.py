"""Which parts there are of a stage's images, and which there are not."""

from __future__ import annotations

import pytest

from wsss.errors import UserError
from wsss.maps.shards import WHOLE, Shard


def test_every_part_has_its_number() -> None:
    assert str(Shard(2, 8)) == "2/8" and Shard(1, 1) == WHOLE
    items = list(range(10))
    assert [list(Shard(number, 3).of(items)) for number in (1, 2, 3)] == [
        [0, 1, 2],
        [3, 4, 5],
        [6, 7, 8, 9],
    ]
    assert [list(Shard(number, 2).of(items[:1])) for number in (1, 2)] == [[], [0]]


@pytest.mark.parametrize(("number", "total"), [(0, 2), (3, 2), (1, 0), (-1, 2)])
def test_no_part_has_another(number: int, total: int) -> None:
    with pytest.raises(UserError, match=f"shard {number} of {total}"):
        Shard(number, total)
