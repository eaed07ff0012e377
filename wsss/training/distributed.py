"""Several processes, one a GPU, that train one model together.

Started by `torchrun` or by anything else that sets its variables (RANK, WORLD_SIZE, LOCAL_RANK,
MASTER_ADDR, MASTER_PORT), on one node or on several. They compute what one process would:

- `batch_size` is the whole batch. Process r of W takes the r-th share of every batch, so that no
  setting depends on the number of processes, and a checkpoint of one resumes on two and back.
- A step's loss is that of the whole batch: a part contributes its share of each mean, and counts
  that only the data decide (labelled pixels, pairs, images kept) are summed over all parts before
  they divide. The contributions' gradients are added up, once, before the optimiser's step.
- BatchNorm that learns takes the statistics of the whole batch (`wsss.training.batchnorm`).
- Draws for each image are made for the whole batch, of which a process takes its share; draws for
  a batch are the same everywhere. Dropout and stochastic depth draw on the device, in shapes that
  follow the share: equal in distribution, not number by number.

The gradients are added up by one explicit reduction instead of DistributedDataParallel, which
does not fit a step with two optimisers and several backward passes: it averages where sums are
wanted, must be told of passes that it shall not reduce, forbids parameters whose gradient is
switched off for one of the passes, and wraps `forward` only, not a network's other methods. The
price is that communication does not overlap with the backward pass.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from wsss.errors import UserError

# Elements of one reduction of gradients: 32 MB of float32, as large as pays.
_BUCKET = 2**23


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
        _exchange(dist.all_reduce, total)
        return total

    def largest(self, value: int) -> int:
        """Return the largest value of any process."""
        if self.size == 1:
            return value
        found = torch.tensor(value)
        _exchange(dist.all_reduce, found, dist.ReduceOp.MAX)
        return int(found)

    def gather(self, values: Tensor) -> Tensor:
        """Return the (n,) values of all processes, (size, n), in the order of their ranks."""
        everything = [torch.empty_like(values) for _ in range(self.size)]
        _exchange(dist.all_gather, everything, values.contiguous())
        return torch.stack(everything)

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Add the gradients of all processes up, in place; the result is the same on each."""
        if self.size == 1:
            return
        gradients = [p.grad for p in parameters if p.grad is not None]
        for bucket in _buckets(gradients):
            flat = torch.cat([gradient.reshape(-1) for gradient in bucket])
            _exchange(dist.all_reduce, flat)
            totals = torch.split(flat, [gradient.numel() for gradient in bucket])
            for gradient, total in zip(bucket, totals, strict=True):
                gradient.copy_(total.view(gradient.shape))

    def equalise(self, modules: Mapping[str, nn.Module]) -> None:
        """Give every process the first one's parameters and buffers.

        They are equal already where all machines draw the same initial weights.
        """
        if self.size == 1:
            return
        with torch.no_grad():
            for module in modules.values():
                for tensor in [*module.parameters(), *module.buffers()]:
                    same = tensor.detach().contiguous()
                    _exchange(dist.broadcast, same, 0)
                    tensor.copy_(same)


def _buckets(gradients: Iterable[Tensor]) -> Iterator[list[Tensor]]:
    """Group tensors of one type, in order, into lists of some tens of megabytes."""
    bucket: list[Tensor] = []
    for gradient in gradients:
        full = sum(other.numel() for other in bucket) + gradient.numel() > _BUCKET
        if bucket and (full or gradient.dtype != bucket[0].dtype):
            yield bucket
            bucket = []
        bucket.append(gradient)
    if bucket:
        yield bucket


def _exchange(function: Callable[..., Any], *arguments: Any) -> None:
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
    _exchange(dist.init_process_group, backend)
    yield processes
    # Not in a `finally`: after an error the others may be gone, and there is no one to take leave
    # of; the process ends and its connections with it.
    dist.destroy_process_group()


@dataclass(frozen=True)
class Split:
    """How a batch is dealt out: over the processes, and in each over parts that fit its device.

    What a step sees as its batch is the process's share.

    Attributes:
        processes: Among them.
        micro_batch: Images of one part at most; None: the share is one part.
    """

    processes: Processes = Processes()
    micro_batch: int | None = None

    def is_whole(self, images: int) -> bool:
        """Say whether the process's `images` are the batch, in one part."""
        return self.processes.size == 1 and len(self.parts(images)) == 1

    def parts(self, images: int) -> list[slice]:
        """Return which of the process's `images` go together through the networks."""
        size = self.micro_batch or images
        return [slice(first, min(first + size, images)) for first in range(0, images, size)]

    def share(self, part: slice, images: int) -> float:
        """Return the share of the whole batch that a part of the process's `images` is."""
        size = int(part.stop) - int(part.start)
        return size / (images * self.processes.size)

    def total(self, count: Tensor) -> Tensor:
        """Return a count over the whole batch from that over the process's images."""
        return self.processes.sum(count)

    def draw(self, images: int, draw: Callable[[int], Tensor]) -> Tensor:
        """Draw for every image of the whole batch, and return what falls to the process's.

        Args:
            images: The process's.
            draw: From a number of images to a tensor with a row for each.
        """
        first = self.processes.rank * images
        return draw(self.processes.size * images)[first : first + images]


def images_each(batch_size: int, processes: Processes) -> int:
    """Return how many images of a batch each process takes.

    Raises:
        UserError: They cannot be dealt out evenly.
    """
    if batch_size % processes.size:
        fitting = [n for n in range(1, batch_size + 1) if batch_size % n == 0]
        raise UserError(
            f"a batch of {batch_size} images cannot be shared evenly by {processes.size} processes",
            expected=f"{', '.join(map(str, fitting))} processes",
            fix="change compute.gpus (how many processes torchrun starts), or batch_size",
        )
    return batch_size // processes.size
