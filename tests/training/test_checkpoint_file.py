"""What a checkpoint holds beside its values comes back, or is refused."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from wsss.errors import UserError
from wsss.training.checkpoint import load_checkpoint, save_checkpoint


class Versioned(nn.Module):
    """Notes the version that its state was saved by."""

    _version = 7

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(2))
        self.found: object = None

    def _load_from_state_dict(self, state: Any, prefix: str, metadata: Any, *rest: Any) -> None:
        self.found = metadata.get("version")
        super()._load_from_state_dict(state, prefix, metadata, *rest)


def saved(folder: Path) -> tuple[Path, nn.Sequential]:
    network = nn.Sequential(nn.BatchNorm2d(2), Versioned())
    path = folder / "checkpoint.pt"
    save_checkpoint(path, identity={"a": 1}, step=3, modules={"net": network}, optimizers={})
    return path, network


def load(path: Path, network: nn.Module) -> int:
    return load_checkpoint(path, identity={"a": 1}, modules={"net": network}, optimizers={})


def test_versions_of_modules_come_back(tmp_path: Path) -> None:
    path, network = saved(tmp_path)
    assert load(path, network) == 3
    assert network[1].found == 7


def test_versions_that_are_not_what_was_written_are_refused(tmp_path: Path) -> None:
    path, network = saved(tmp_path)
    state = torch.load(path, weights_only=True)
    state["versions"]["net"]["0"]["version"] = {}
    torch.save(state, path)
    with pytest.raises(UserError, match="damaged: it does not hold what was written"):
        load(path, network)


def test_attributes_of_a_state_are_not_looked_at(tmp_path: Path) -> None:
    path, network = saved(tmp_path)
    state = torch.load(path, weights_only=True)
    forged = OrderedDict(state["modules"]["net"])
    forged._metadata = {"0": {"version": {}}}  # type: ignore[attr-defined]
    state["modules"]["net"] = forged
    torch.save(state, path)
    assert load(path, network) == 3
    assert network[1].found == 7
