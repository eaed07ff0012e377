"""Two processes with four images each take the steps that one takes with eight."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from distributed_cases import (
    APART,
    CASES,
    COUNTED,
    FROZEN,
    GRADIENT,
    LOGGED,
    MOVED,
    SCATTERED,
    SPOILT,
    STOPPED,
    Result,
    curve_distance,
    finished,
    one_thread_count,
    run,
    spoil,
    spoil_gradient,
    start_pair,
    stop,
    weight_distance,
)
from torch import Tensor

from wsss.errors import UserError
from wsss.runtime.compute import Compute, setup
from wsss.runtime.processes import Processes
from wsss.training import distributed
from wsss.training.batchnorm import synchronise_batchnorm
from wsss.training.distributed import images_each

# In whose folder of the pair one process has left a checkpoint of its first two steps.
RESUMED = "deeplab v3plus, BatchNorm learns"


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Result]:
    """Every training by one process."""
    folder = tmp_path_factory.mktemp("alone")
    with one_thread_count():
        return {name: run(name, folder / name) for name in CASES}


@dataclass(frozen=True)
class Together:
    """What two processes did: their folder, results by name, and what each printed."""

    folder: Path
    results: Mapping[str, Result]
    printed: list[str]


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> Together:
    """Every training by two, some of them with trouble, one resumed."""
    folder = tmp_path_factory.mktemp("together")
    with one_thread_count(), pytest.raises(SystemExit):
        run(RESUMED, folder / RESUMED, trouble=stop)
    # Not what two processes should find that share a folder.
    shutil.copytree(folder / RESUMED, folder / f"{RESUMED}{SCATTERED}1")
    names = [*CASES, *(name + APART for name in COUNTED), "cam" + SPOILT, "cam" + GRADIENT]
    printed = finished(start_pair(folder, *names, RESUMED + STOPPED, RESUMED + SCATTERED))
    results = {name: Result(**torch.load(folder / f"{name}.pt")) for name in names}
    return Together(folder, results, printed)


@pytest.mark.parametrize("name", CASES)
def test_two_processes_take_the_steps_of_one(
    name: str, alone: Mapping[str, Result], together: Together
) -> None:
    assert len(alone[name].logged) == 4
    assert curve_distance(alone[name], together.results[name]) < LOGGED
    assert weight_distance(alone[name], together.results[name]) < MOVED


def test_the_first_process_speaks_for_both(together: Together) -> None:
    first, second = together.printed
    assert "cam: 4/4 step" in first
    assert first.count("SIGTERM: saved at step 2") == 1
    assert second == ""


def test_no_process_ends_before_the_first_has_saved(tmp_path: Path) -> None:
    finished(start_pair(tmp_path, RESUMED + STOPPED))


@pytest.mark.parametrize(
    ("name", "trouble"), [("cam" + SPOILT, spoil), ("cam" + GRADIENT, spoil_gradient)]
)
def test_what_is_no_number_is_skipped_by_both(
    name: str, trouble: Any, together: Together, tmp_path: Path
) -> None:
    with one_thread_count():
        alone = run("cam", tmp_path, trouble=trouble)
    assert [line.get("skipped_steps") for line in alone.logged] == [None, 1.0, None, None]
    assert curve_distance(alone, together.results[name]) < LOGGED
    assert weight_distance(alone, together.results[name]) < MOVED


def test_checkpoints_go_from_one_process_to_two_and_back(
    alone: Mapping[str, Result], together: Together
) -> None:
    # `test_two_processes_take_the_steps_of_one` has compared what came of the first half of one.
    assert f"{RESUMED}: 4 step, resuming at 2" in together.printed[0]
    stopped = together.folder / f"{RESUMED}{STOPPED}"
    assert [path.name for path in stopped.glob("*.pt")] == ["checkpoint.pt"]
    with one_thread_count():
        resumed = run(RESUMED, stopped)
    assert [line["step"] for line in resumed.logged] == [1, 2, 3, 4]
    assert curve_distance(alone[RESUMED], resumed) < LOGGED
    assert weight_distance(alone[RESUMED], resumed) < MOVED


@pytest.mark.parametrize("name", COUNTED)
def test_counts_of_a_process_alone_would_be_noticed(
    name: str, alone: Mapping[str, Result], together: Together
) -> None:
    apart = together.results[name + APART]
    logged, moved = curve_distance(alone[name], apart), weight_distance(alone[name], apart)
    assert logged > 100 * LOGGED or moved > 100 * MOVED


@pytest.mark.parametrize("name", FROZEN)
def test_a_batch_in_parts_is_the_same_step(
    name: str, alone: Mapping[str, Result], tmp_path: Path
) -> None:
    with one_thread_count():
        parts = run(name, tmp_path, micro_batch=3)  # 3, 3 and 2 images
    assert curve_distance(alone[name], parts) < LOGGED
    assert weight_distance(alone[name], parts) < MOVED


def test_batchnorm_that_learns_needs_the_whole_batch(tmp_path: Path) -> None:
    with one_thread_count(), pytest.raises(UserError, match="BatchNorm learns from all of them"):
        run("cam, BatchNorm learns", tmp_path, micro_batch=4)


def test_batchnorm_of_an_unknown_kind_is_named() -> None:
    class Odd(torch.nn.BatchNorm2d):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) + 1

    network = torch.nn.Sequential(torch.nn.BatchNorm2d(2), Odd(2))
    with pytest.raises(UserError, match="Odd of Sequential"):
        synchronise_batchnorm(network)
    # Frozen, it is nobody's concern; and in one process nothing changes but the class.
    network = torch.nn.Sequential(torch.nn.BatchNorm2d(2), Odd(2).eval())
    names, x = list(network.state_dict()), torch.rand(3, 2, 4, 4)
    before = copy.deepcopy(network)(x)
    synchronise_batchnorm(network)
    assert list(network.state_dict()) == names
    assert torch.equal(network(x), before)


def test_gradients_travel_in_buckets_of_one_type(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distributed, "_BUCKET", 10)
    kinds = [(4, torch.float32), (6, torch.float32), (1, torch.float32), (2, torch.float64),
             (30, torch.float64)]  # fmt: skip
    tensors = [torch.zeros(size, dtype=dtype) for size, dtype in kinds]
    found = [[len(tensor) for tensor in bucket] for bucket in distributed._buckets(tensors)]
    assert found == [[4, 6], [1], [2], [30]]


def test_every_gradient_becomes_the_sum(monkeypatch: pytest.MonkeyPatch) -> None:
    # As if the other process had the same ones.
    monkeypatch.setattr(distributed, "exchange", lambda reduce, values: values.mul_(2))
    monkeypatch.setattr(distributed, "_BUCKET", 7)
    shapes = ((2, 3), (4,), (1, 5, 2), (3,))
    parameters = [torch.nn.Parameter(torch.zeros(shape)) for shape in shapes]
    own = [torch.rand(shape) for shape in shapes[:-1]]
    for parameter, gradient in zip(parameters, own, strict=False):
        parameter.grad = gradient.clone()
    distributed.sum_gradients(Processes(rank=0, size=2), parameters)
    assert parameters[-1].grad is None
    for parameter, gradient in zip(parameters, own, strict=False):
        assert parameter.grad is not None and torch.equal(parameter.grad, 2 * gradient)


def test_a_batch_must_be_shared_evenly() -> None:
    assert images_each(8, Processes(rank=1, size=4)) == 2
    with pytest.raises(UserError, match="1, 2, 4, 8 processes"):
        images_each(8, Processes(rank=0, size=3))


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, Processes()),
        ({"WORLD_SIZE": "4"}, Processes()),
        ({"RANK": "0", "WORLD_SIZE": "1"}, Processes()),
        ({"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1"}, Processes(5, 8, 1)),
        ({"RANK": "2", "WORLD_SIZE": "2", "LOCAL_RANK": "0"}, None),
        ({"RANK": "1", "WORLD_SIZE": "2"}, None),
        ({"RANK": "one", "WORLD_SIZE": "2", "LOCAL_RANK": "0"}, None),
    ],
)
def test_the_environment_says_which_process_this_is(
    variables: Mapping[str, str], expected: Processes | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    if expected is None:
        with pytest.raises(UserError, match="RANK is"):
            Processes.here()
    else:
        assert Processes.here() == expected


def test_stages_of_one_process_refuse_to_be_several(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    cpu = Compute(device="cpu", threads=torch.get_num_threads())
    with pytest.raises(UserError, match="a stage that one process runs"):
        setup(cpu, seed=0)
    assert setup(cpu, seed=0, trains=True) == torch.device("cpu")
    with pytest.raises(UserError, match="a GPU of its own"):
        replace(cpu, device="cuda:0").torch_device()
    if not torch.cuda.is_available():  # no CPU in place of the GPUs that were asked for
        with pytest.raises(UserError, match=r"sees 0 GPU\(s\)"):
            replace(cpu, device="auto").torch_device()
