"""One optimiser step on a loss whose parts are spread over passes and processes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor
from torch.optim import Optimizer

from wsss.training.distributed import Split, sum_gradients
from wsss.training.step import NonFiniteLoss

TOTAL = "total"


def descend(
    optimizer: Optimizer, parts: Iterable[Mapping[str, Tensor]], *, split: Split, what: str
) -> dict[str, Tensor]:
    """Take one step down the gradient of the whole batch's loss.

    Args:
        optimizer: Of all that the loss has gradient to, or of a part of it.
        parts: Per part of this process's images its contribution to the batch's loss, "total",
            and to other scalars of interest; best a generator, so that only one part's
            activations are alive.
        split: How the batch is dealt out.
        what: Whose loss it is, for the error.

    Returns:
        The scalars of the whole batch, without gradient; the same in all processes.

    Raises:
        NonFiniteLoss: The batch's loss is not finite; no step was taken, in no process.
    """
    sums: dict[str, Tensor] = {}
    optimizer.zero_grad(set_to_none=True)
    for terms in parts:
        terms[TOTAL].backward()  # type: ignore[no-untyped-call]
        for name, term in terms.items():
            sums[name] = sums[name] + term.detach() if name in sums else term.detach()
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    if split.processes.size > 1:
        sums = _sum_over_processes(sums, sum(p.grad is not None for p in parameters), split)
    if not torch.isfinite(sums[TOTAL]):
        raise NonFiniteLoss(f"the {what} loss is {float(sums[TOTAL])}")
    sum_gradients(split.processes, parameters)
    optimizer.step()
    return sums


def _sum_over_processes(
    sums: Mapping[str, Tensor], gradients: int, split: Split
) -> dict[str, Tensor]:
    values = torch.stack(list(sums.values()))
    # Along with them the number of gradients, which must be the same ones everywhere.
    totals = split.processes.sum(torch.cat([values, values.new_tensor([gradients])]))
    if round(float(totals[-1])) != gradients * split.processes.size:
        raise RuntimeError("the processes have gradients of different parameters")
    return dict(zip(sums, totals[:-1].unbind(), strict=True))
