"""The processes that share one computation, as `torchrun` or anything else starts them.

They are told by its variables (RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR, MASTER_PORT), on one node
or on several.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from wsss.errors import UserError


@dataclass(frozen=True)
class Processes:
    """The processes of a training, seen from one of them.

    Attributes:
        rank: This process, from 0; only the first writes files and reports.
        size: How many there are.
        local_rank: This process among those of its node: the GPU that it takes.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    @staticmethod
    def here() -> Processes:
        """Read the environment, as `torchrun` sets it; one process where nothing is set.

        Raises:
            UserError: Some of the variables are missing, or are no numbers that fit each other.
        """
        names = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
        if "RANK" not in os.environ or os.environ.get("WORLD_SIZE", "1") == "1":
            return Processes()
        values = {name: os.environ.get(name, "") for name in names}
        numbers = [int(text) if text.isdecimal() else -1 for text in values.values()]
        rank, size, local_rank = numbers
        if not 0 <= rank < size or local_rank < 0:
            raise UserError(
                ", ".join(f"{name} is {text!r}" for name, text in values.items()),
                where="environment",
                expected="0 <= RANK < WORLD_SIZE, and LOCAL_RANK, as torchrun sets them",
                fix="start the training by torchrun, or unset RANK and WORLD_SIZE",
            )
        return Processes(rank, size, local_rank)

    @property
    def is_main(self) -> bool:
        """Whether this process writes and reports."""
        return self.rank == 0

    def sum(self, values: Tensor) -> Tensor:
        """Return the sum over all processes; `values` itself where there is but one."""
        if self.size == 1:
            return values
        total = values.detach().clone()
        exchange(dist.all_reduce, total)
        return total

    def largest(self, value: int) -> int:
        """Return the largest value of any process."""
        if self.size == 1:
            return value
        found = torch.tensor(value)
        exchange(dist.all_reduce, found, dist.ReduceOp.MAX)
        return int(found)

    def gather(self, values: Tensor) -> Tensor:
        """Return the (n,) values of all processes, (size, n), in the order of their ranks."""
        everything = [torch.empty_like(values) for _ in range(self.size)]
        exchange(dist.all_gather, everything, values.contiguous())
        return torch.stack(everything)


def exchange(function: Callable[..., Any], *arguments: Any) -> None:
    """Call a collective function of `torch.distributed`.

    Raises:
        UserError: Another process does not answer.
    """
    try:
        function(*arguments)
    except RuntimeError as error:
        first_line = str(error).strip().partition("\n")[0]
        raise UserError(
            "another process of this training is gone, or cannot be reached",
            where=f"process {os.environ.get('RANK')} of {os.environ.get('WORLD_SIZE')}: "
            f"{first_line}",
            fix="look for that process's own message; started again, the training goes on from "
            "its last checkpoint",
        ) from error


@contextmanager
def joined(device: torch.device) -> Iterator[Processes]:
    """Connect with the other processes, if there are any, until the block ends.

    Args:
        device: Where this one computes. GPUs talk by NCCL, CPUs by gloo.

    Raises:
        UserError: Nothing says where the others are, or they do not answer.
    """
    processes = Processes.here()
    if processes.size == 1 or dist.is_initialized():
        yield processes
        return
    missing = [name for name in ("MASTER_ADDR", "MASTER_PORT") if name not in os.environ]
    if missing:
        raise UserError(
            f"{' and '.join(missing)} not set, in process {processes.rank} of {processes.size}",
            where="environment",
            expected="where the first process waits for the others",
            fix="start the training by torchrun, or unset RANK and WORLD_SIZE",
        )
    # Flags of the loop go by gloo also beside GPUs, so that they wait for no kernel.
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    exchange(dist.init_process_group, backend)
    yield processes
    # Not in a `finally`: after an error the others may be gone, and there is no one to take leave
    # of; the process ends and its connections with it.
    dist.destroy_process_group()
