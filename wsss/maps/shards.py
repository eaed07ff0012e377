"""One part of a stage's work, so that several jobs share it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from wsss.errors import UserError

T = TypeVar("T")


@dataclass(frozen=True)
class Shard:
    """Part `number` of `total`; the parts of a sequence are runs of neighbours, in order.

    Neighbours, so that putting the parts together is one pass over them in order, whatever their
    number: nothing of the order in which one job would have worked is lost.
    """

    number: int = 1
    total: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.number <= self.total:
            raise UserError(
                f"shard {self.number} of {self.total}",
                expected="I/N with I from 1 to N, such as 2/8",
            )

    def of(self, items: Sequence[T]) -> Sequence[T]:
        """Return this part of `items`; parts differ by one item at most, and may be empty.

        Where items are computed together (images of one size in one batch), `items` are those
        batches: a batch is never cut, as the bytes of its results may follow its size.
        """
        return items[self.bounds(len(items))]

    def bounds(self, count: int) -> slice:
        """Return which of `count` items are this part."""
        return slice((self.number - 1) * count // self.total, self.number * count // self.total)

    def __str__(self) -> str:
        return f"{self.number}/{self.total}"


WHOLE = Shard()


def parse_shard(text: str) -> Shard:
    """Read `I/N`.

    Raises:
        UserError: It has another form, or I is not in 1..N.
    """
    match = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", text)
    if match is None:
        raise UserError(f"'{text}' is no shard", expected="I/N with I from 1 to N, such as 2/8")
    return Shard(int(match[1]), int(match[2]))
