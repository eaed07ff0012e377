"""500 damaged files for every reader; `python -m tests.fuzz NAME --count 20000` feeds more."""

from __future__ import annotations

import random

import pytest

from fuzz.mutator import damaged, damaged_json
from fuzz.runner import fuzz
from fuzz.targets import TARGETS

COUNT = 500


@pytest.mark.slow
@pytest.mark.parametrize("name", TARGETS)
def test_damaged_files_are_refused_with_a_message(name: str) -> None:
    result = fuzz(name, COUNT)
    assert result.faults == []
    assert sum(result.counts.values()) == COUNT
    if name != "status":  # which shows what there is, whatever is damaged
        assert result.counts["refused"] > COUNT / 10, "the damage reaches nobody"


def test_damage_is_repeated_by_its_seed() -> None:
    content = bytes(range(256))
    once, twice, other = (damaged(content, random.Random(seed)) for seed in (1, 1, 2))
    assert once == twice != other
    assert damaged_json(b'{"a": [1, {"b": 2}]}', random.Random(0)) != b'{"a": [1, {"b": 2}]}'
