"""What a process makes of the settings of `compute`, each at another value than its default."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fake_cuda import fake_cuda
from torch import Tensor, nn

from wsss.runtime.compute import Compute, Device, setup
from wsss.training.loop import train
from wsss.training.step import OnePhaseTask, Part


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    threads, quick = torch.get_num_threads(), torch.backends.cudnn.benchmark
    exact = torch.are_deterministic_algorithms_enabled()
    filled = torch.utils.deterministic.fill_uninitialized_memory
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(exact)
    torch.utils.deterministic.fill_uninitialized_memory = filled
    torch.backends.cudnn.benchmark = quick


@pytest.mark.setting("compute.threads")
def test_threads() -> None:
    for threads in (3, 1):
        setup(Compute(device="cpu", threads=threads), seed=0)
        assert torch.get_num_threads() == threads


@pytest.mark.setting("compute.device")
def test_a_cpu_beside_a_gpu() -> None:
    with fake_cuda():
        assert setup(Device(device="cpu"), seed=0) == torch.device("cpu")
        assert setup(Device(device="auto"), seed=0).type == "cuda"


@pytest.mark.setting("compute.deterministic")
@pytest.mark.parametrize("deterministic", [True, False])
def test_only_deterministic_kernels_where_that_is_asked_for(deterministic: bool) -> None:
    torch.use_deterministic_algorithms(False)
    torch.backends.cudnn.benchmark = deterministic
    with fake_cuda():
        setup(Compute(device="cuda:0", deterministic=deterministic), seed=0, trains=True)
        assert torch.are_deterministic_algorithms_enabled() == deterministic
        assert torch.utils.deterministic.fill_uninitialized_memory == (not deterministic)
        # The fastest kernel of several is not the same one each time.
        assert torch.backends.cudnn.benchmark == (not deterministic)


class Pids:
    """Eight images, each of which is the number of the process that loads it."""

    names = tuple("abcdefgh")

    def load(self, position: int, rng: np.random.Generator) -> dict[str, Any]:
        return {"image": torch.ones(1), "pid": os.getpid(), "name": self.names[position]}


class Task(OnePhaseTask):
    """A regression that notes how many images come together, and whence."""

    def __init__(self) -> None:
        self.net = nn.Linear(1, 1)
        self.modules = {"net": self.net}
        self.optimizers = {"sgd": torch.optim.SGD(self.net.parameters(), lr=0.1)}
        self.images: list[int] = []
        self.pids: set[int] = set()

    def losses(self, part: Part, count: Tensor | None) -> dict[str, Tensor]:
        self.images.append(len(part.batch["image"]))
        self.pids |= set(part.batch["pid"].tolist())
        return {"total": part.share * self.net(part.batch["image"]).mean()}


def trained(folder: Path, **compute: Any) -> Task:
    task = Task()
    train(
        task,
        Pids(),
        epochs=1,
        batch_size=8,
        seed=0,
        compute=Compute(device="cpu", threads=1, **compute),
        work_dir=folder,
        identity={},
        stage="test",
        description="test",
    )
    return task


@pytest.mark.setting(
    "compute.micro_batch.cam", "compute.micro_batch.irn", "compute.micro_batch.segmentation"
)
def test_so_many_images_go_through_the_networks_at_once(tmp_path: Path) -> None:
    assert trained(tmp_path, workers=0, micro_batch=3).images == [3, 3, 2]
    assert trained(tmp_path, workers=0).images == [8]


@pytest.mark.setting("compute.workers")
def test_helper_processes_load_the_images(tmp_path: Path) -> None:
    assert trained(tmp_path, workers=0).pids == {os.getpid()}
    pids = trained(tmp_path, workers=1).pids
    assert len(pids) == 1 and os.getpid() not in pids
