"""What runs and rows may be called: what the workflow's patterns find again, and nothing else."""

from __future__ import annotations

import re
from typing import Any

import pytest

from wsss.errors import UserError
from wsss.project.config import resolve
from wsss.project.names import NAME

OWN: dict[str, Any] = {"root": "own", "index": {"format": "folder"}}
# An umlaut, a digit and a power of other scripts, an option, what only looks empty.
NONE = ["ä", "\u0663", "x²", "-x", "--help", "_", "a b", "a\n", "", "../a", "a.b"]


def runs_called(name: str) -> dict[str, Any]:
    return {name: OWN}


def variants_called(name: str) -> dict[str, Any]:
    return {"a": {**OWN, "ablations": {"variants": {name: {}}}}}


def methods_called(name: str) -> dict[str, Any]:
    return {"a": {**OWN, "methods": {"seeds": [0], "rows": {name: {}}}}}


@pytest.mark.parametrize("called", [runs_called, variants_called, methods_called])
def test_names_are_what_the_workflow_finds_again(called: Any) -> None:
    for name in ["a", "A-1_b-", "1", "None", "on", "_a"]:
        resolve({"roots": {"own": "x"}, "runs": called(name)})
        assert re.fullmatch(NAME, name)
    for name in NONE:
        with pytest.raises(UserError, match="is no name for a") as caught:
            resolve({"roots": {"own": "x"}, "runs": called(name)})
        assert "letters" in str(caught.value.expected)
