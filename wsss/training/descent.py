"""A task's step, taken: losses whose parts are spread over passes and processes, and descended."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from wsss.training.distributed import Split, sum_gradients
from wsss.training.step import Phase, StepContext, TrainingTask

TOTAL = "total"


class NonFiniteStep(Exception):
    """A loss or a gradient is not finite; the optimiser's step was not taken, in no process."""


def take_step(
    task: TrainingTask, batch: Mapping[str, Any], context: StepContext
) -> dict[str, Tensor | float]:
    """Take a step down the gradient of the whole batch's losses, phase by phase.

    Args:
        task: What is trained.
        batch: This process's share.
        context: Of the step.

    Returns:
        The scalars of the whole batch, without gradient, the same in all processes; "loss" is the
        last phase's.

    Raises:
        NonFiniteStep: A phase's loss or gradients are not finite; it left no trace.
    """
    scalars: dict[str, Tensor | float] = {}
    for phase in task.phases(batch, context):
        statistics = [(buffer, buffer.clone()) for buffer in _learnt_buffers(task.modules)]
        try:
            terms = _descend(phase, task, context.split)
        except NonFiniteStep:
            for buffer, before in statistics:
                buffer.copy_(before)
            raise
        if phase.finish is not None:
            terms = dict(phase.finish(terms))
        scalars["loss"] = terms[TOTAL] if phase.prefix else terms.pop(TOTAL)
        scalars |= {f"{phase.prefix}{name}": term for name, term in terms.items()}
        scalars |= phase.logged
    return scalars


def _learnt_buffers(modules: Mapping[str, nn.Module]) -> Sequence[Tensor]:
    """Return what forward passes change: running statistics of what is in training mode."""
    return [
        buffer
        for module in modules.values()
        for part in module.modules()
        if part.training
        for buffer in part.buffers(recurse=False)
    ]


def _descend(phase: Phase[Any], task: TrainingTask, split: Split) -> dict[str, Tensor]:
    optimizer = task.optimizers[phase.optimizer]
    optimizer.zero_grad(set_to_none=True)
    whole = split.processes.size == 1 and len(phase.parts) == 1
    count = None if whole or phase.count is None else phase.count()
    if count is not None:
        count = split.total(count)
    sums: dict[str, Tensor] = {}
    # One after the other: only one part's activations are alive.
    for part in phase.parts:
        terms = phase.losses(part, count)
        terms[TOTAL].backward()  # type: ignore[no-untyped-call]
        for name, term in terms.items():
            sums[name] = sums[name] + term.detach() if name in sums else term.detach()
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    if split.processes.size > 1:
        sums = _sum_over_processes(sums, sum(p.grad is not None for p in parameters), split)
        sum_gradients(split.processes, parameters)
    # Of the sums, which are the same everywhere: so all processes decide alike. A finite loss is
    # not enough, since backwards 0 times what is not finite is no number either.
    gradients = [p.grad for p in parameters if p.grad is not None]
    # In a few kernels rather than one for each parameter: a GPU waits for their launches.
    largest = torch.nn.utils.get_total_norm(gradients, norm_type=float("inf"))
    if not bool(torch.isfinite(torch.stack([sums[TOTAL], largest.to(sums[TOTAL].dtype)])).all()):
        loss = float(sums[TOTAL])
        behind = ", its gradients are not finite" if math.isfinite(loss) else ""
        raise NonFiniteStep(f"the loss of the {phase.optimizer} is {loss:.4g}{behind}")
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
