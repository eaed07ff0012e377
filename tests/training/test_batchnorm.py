"""BatchNorm over a shared batch, against PyTorch's over all of it, without any processes."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from wsss.runtime.processes import Processes
from wsss.training.batchnorm import _Normalise


class Shared(Processes):
    """Two processes of which this is one; what the other one says is known beforehand."""

    said: list[Tensor]
    """What this one says, in order."""
    heard: list[Tensor]
    """What the other one says, in order."""

    def gather(self, values: Tensor) -> Tensor:
        self.said.append(values.detach())
        other = self.heard[len(self.said) - 1] if self.heard else torch.zeros_like(values)
        return torch.stack([values, other])

    def sum(self, values: Tensor) -> Tensor:
        return self.gather(values).sum(0)


def shared(heard: list[Tensor]) -> Shared:
    made = Shared()
    object.__setattr__(made, "said", [])
    object.__setattr__(made, "heard", heard)
    return made


@pytest.mark.parametrize("affine", [True, False])
def test_two_unequal_parts_are_normalised_as_one_batch(affine: bool) -> None:
    generator = torch.Generator().manual_seed(0)

    def drawn(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    whole, gradient = drawn(5, 3, 4, 2) * 3 + 1, drawn(5, 3, 4, 2)
    weight, bias = (drawn(3), drawn(3)) if affine else (None, None)
    wanted_x = whole.clone().requires_grad_()
    wanted = F.batch_norm(wanted_x, None, None, weight, bias, training=True, eps=1e-3)
    wanted.backward(gradient)

    parts = (slice(0, 3), slice(3, 5))
    x = [whole[part].clone().requires_grad_() for part in parts]
    said: list[list[Tensor]] = [[], []]
    # What each says of the statistics follows from its part alone; of the gradients from both.
    for _ in range(3):
        for own in (0, 1):
            group = shared(said[1 - own])
            x[own].grad = None
            y, mean, variance, count = _Normalise.apply(x[own], weight, bias, 1e-3, group)
            y.backward(gradient[parts[own]])
            said[own] = group.said
    for own, part in enumerate(parts):
        group = shared(said[1 - own])
        y, mean, variance, count = _Normalise.apply(x[own], weight, bias, 1e-3, group)
        torch.testing.assert_close(y.detach(), wanted[part].detach())
        torch.testing.assert_close(x[own].grad, wanted_x.grad[part])
        torch.testing.assert_close(mean, whole.mean((0, 2, 3)))
        torch.testing.assert_close(variance, whole.var((0, 2, 3), correction=0))
        assert float(count) == 5 * 4 * 2
