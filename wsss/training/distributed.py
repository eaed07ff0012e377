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

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import torch
import torch.distributed as dist
from torch import Tensor, nn

from wsss.errors import UserError
from wsss.runtime.processes import Processes, exchange

# Elements of one reduction of gradients: 32 MB of float32, as large as pays.
_BUCKET = 2**23


def sum_gradients(processes: Processes, parameters: Iterable[nn.Parameter]) -> None:
    """Add the gradients of all processes up, in place; the result is the same on each."""
    if processes.size == 1:
        return
    gradients = [p.grad for p in parameters if p.grad is not None]
    for bucket in _buckets(gradients):
        flat = torch.cat([gradient.reshape(-1) for gradient in bucket])
        exchange(dist.all_reduce, flat)
        totals = torch.split(flat, [gradient.numel() for gradient in bucket])
        for gradient, total in zip(bucket, totals, strict=True):
            gradient.copy_(total.view(gradient.shape))


def equalise(processes: Processes, modules: Mapping[str, nn.Module]) -> None:
    """Give every process the first one's parameters and buffers.

    They are equal already where all machines draw the same initial weights.
    """
    if processes.size == 1:
        return
    with torch.no_grad():
        for module in modules.values():
            for tensor in [*module.parameters(), *module.buffers()]:
                same = tensor.detach().contiguous()
                exchange(dist.broadcast, same, 0)
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


@dataclass(frozen=True)
class Split:
    """How a batch is dealt out: over the processes, and in each over parts that fit its device.

    What a step sees as its batch is the process's share.

    Attributes:
        processes: Among them.
        micro_batch: Images of one part at most; None: the share is one part.
    """

    processes: Processes = field(default_factory=Processes)
    micro_batch: int | None = None

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
