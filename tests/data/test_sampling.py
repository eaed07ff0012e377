"""Which pictures are shown: those that are named, or a few at even distances."""

from __future__ import annotations

import pytest

from wsss.data.index import ImageRecord, Index
from wsss.data.sampling import sample_records, shown_records
from wsss.errors import UserError

INDEX = Index(
    ("cat",),
    [
        ImageRecord(f"p{n:02d}", ("train" if n < 12 else "val",), (), 1, 1, f"{n}")
        for n in range(15)
    ],
)


@pytest.mark.parametrize("count", [1, 2, 3, 5, 12])
def test_a_sample_is_the_middle_of_equal_parts(count: int) -> None:
    found = [int(each.name[1:]) for each in sample_records(INDEX, split="train", count=count)]
    assert found == [int((i + 0.5) * 12 / count) for i in range(count)]
    assert len(sample_records(INDEX, split="train")) == 12


def test_named_pictures_in_their_order_and_a_sample_where_none_is_in_the_split() -> None:
    def names(split: str, *wanted: str) -> list[str]:
        found = shown_records(INDEX, split=split, names=wanted, count=2)
        return [record.name for record in found]

    assert names("train", "p07", "p13", "p01") == ["p07", "p01"]
    assert names("val", "p07") == ["p12", "p14"]
    with pytest.raises(UserError, match="not in the index: p77"):
        names("train", "p77")
    with pytest.raises(UserError, match="not in split 'val': p07") as caught:
        sample_records(INDEX, split="val", names=["p07"])
    assert "names of its 3 images" in str(caught.value)
