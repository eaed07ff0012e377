"""What a configuration means that leaves sections out, and what a device cannot do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from wsss.errors import UserError
from wsss.project.config import resolve
from wsss.project.local import LocalCompute
from wsss.runtime.settings import to_dict

RUNS: dict[str, Any] = {"a": {"root": "own", "index": {"format": "folder"}}}


def test_one_job_a_stage_no_weights_and_no_plugins() -> None:
    config = resolve({"roots": {"own": "x"}, "runs": RUNS})
    assert set(to_dict(config.shards).values()) == {1}
    assert (config.weights, config.plugins, config.compute) == ({}, (), LocalCompute())


def test_a_number_of_jobs_is_that_of_every_stage() -> None:
    sections = {"shards": 3, "weights": {"mine": "w.pth"}, "plugins": ["p.py"]}
    config = resolve({"roots": {"own": "x"}, "runs": RUNS, **sections})
    assert set(to_dict(config.shards).values()) == {3}
    assert config.weights == {"mine": Path("w.pth")} and config.plugins == (Path("p.py"),)


@pytest.mark.parametrize(
    "values", [{"device": "cuda:1"}, {"device": "mps", "deterministic": False}]
)
def test_a_single_gpu_is_one(values: dict[str, Any]) -> None:
    assert LocalCompute(**values, gpus=1).device == values["device"]
    with pytest.raises(UserError, match="gpus is 2 with device"):
        LocalCompute(**values, gpus=2)


def test_only_an_apple_gpu_lacks_deterministic_kernels() -> None:
    for device in ("cpu", "cuda", "cuda:0", "auto"):
        assert LocalCompute(device=device, deterministic=True).deterministic
    assert not LocalCompute(device="mps", deterministic=False).deterministic
    assert LocalCompute(feature_cache_gb=0.0).feature_cache_gb == 0
    with pytest.raises(UserError, match="no such kernels"):
        LocalCompute(device="mps", deterministic=True)
