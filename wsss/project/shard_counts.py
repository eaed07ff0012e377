"""`shards:` of the configuration: how many jobs share a stage."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from wsss.errors import UserError
from wsss.runtime.settings import from_dict, json_schema


@dataclass(frozen=True)
class ShardCounts:
    """How many jobs share a stage whose images do not depend on each other.

    Local, and in no hash: no result depends on it, and a new number counts from when the stage
    runs anyway.
    """

    export: int = 1
    """Jobs that export the CAMs."""
    labels: int = 1
    """Jobs that mine confident labels."""
    pseudo_labels: int = 1
    """Jobs that walk the CAMs into pseudo-labels."""
    prediction: int = 1
    """Jobs that predict."""

    def __post_init__(self) -> None:
        for entry in dataclasses.fields(self):
            number = getattr(self, entry.name)
            if number < 1:
                raise UserError(
                    f"{entry.name} is {number}", where=f"shards.{entry.name}", expected="1 or more"
                )


def read_counts(value: Any) -> ShardCounts:
    """Read one number for all stages, or a number for some of them.

    Raises:
        UserError: It is neither, names another stage, or is below 1.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        return ShardCounts(**{entry.name: value for entry in dataclasses.fields(ShardCounts)})
    return from_dict(ShardCounts, {} if value is None else value, where="shards")


def counts_schema() -> dict[str, Any]:
    """Return the JSON schema of `shards:`."""
    return {"anyOf": [{"type": "integer", "minimum": 1}, json_schema(ShardCounts)]}
