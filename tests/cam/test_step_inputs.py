"""What the two networks of a step are given, and when one pass of the classifier does for two."""

from __future__ import annotations

import pytest
from timm.layers import DropPath
from torch import nn

from wsss.cam.methods.step_inputs import is_deterministic

PLAIN = (nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Dropout(0.0), DropPath(0.0), nn.BatchNorm2d(4).eval())


@pytest.mark.parametrize("part", [nn.Dropout2d(0.1), DropPath(0.1), nn.BatchNorm2d(4)])
def test_what_draws_or_learns_from_the_batch_is_not_the_same_twice(part: nn.Module) -> None:
    network = nn.Sequential(*PLAIN)
    assert is_deterministic(network)
    assert not is_deterministic(nn.Sequential(*PLAIN, nn.Sequential(part)))
