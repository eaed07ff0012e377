"""Tensors that believe to be on a GPU, on a machine without one.

PyTorch's FakeTensorMode knows shapes, types and devices, and no values. An operation on tensors of
two devices raises as it would on a GPU; so does what needs a generator of the device's own. What
needs values or a GPU's context is replaced: a number read from a tensor is 1, and a backward pass
gives every parameter that the loss depends on a gradient of its shape and device.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

GPU = torch.device("cuda:0")


class Numbers(TorchDispatchMode):
    """What a GPU would answer where no value is known, and what it would refuse."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = func.overloadpacket
        if name in (torch.ops.aten._local_scalar_dense, torch.ops.aten.item):
            return _dtype(args[0]).type(getattr(args[0], "is_true", True)).item()
        if name is torch.ops.aten.equal:
            return True
        # How many elements a mask has is a value: one of each of its dimensions.
        if name is torch.ops.aten.nonzero:
            mask = args[0]
            return torch.zeros(1, mask.dim(), dtype=torch.int64, device=mask.device)
        if name is torch.ops.aten.index:
            source, places = args
            args = (source, [_as_numbers(place) for place in places for place in _split(place)])
        for each in tree_leaves((args, kwargs)):
            if isinstance(each, FakeTensor):
                each.constant = None  # small numbers are kept, and would be brought to the GPU
        out = func(*args, **kwargs)
        if name in (torch.ops.aten.any, torch.ops.aten.all):
            # Whether anything is wrong: no; whether all is right: yes.
            out.is_true = name is torch.ops.aten.all
        generator = kwargs.get("generator")
        if generator is not None and isinstance(out, Tensor):
            assert generator.device.type == out.device.type, (
                f"{func} on {out.device} draws from a generator on {generator.device}"
            )
        return out


def _split(place: Tensor | None) -> list[Tensor | None]:
    """Return a mask as many times as it has dimensions, marked by its dimension."""
    if place is None or place.dtype not in (torch.bool, torch.uint8):
        return [place]
    return [place] * place.dim()


def _as_numbers(place: Tensor | None) -> Tensor | None:
    if place is None or place.dtype not in (torch.bool, torch.uint8):
        return place
    return torch.zeros(1, dtype=torch.int64, device=place.device)


def _apply(module: nn.Module, fn: Any, recurse: bool = True) -> nn.Module:
    """What `Module._apply` does, tensor by tensor: fake ones cannot be put into real ones."""
    for part in module.modules():
        for name, parameter in part._parameters.items():
            if parameter is not None:
                moved = fn(parameter.detach())
                if moved is not parameter and not _same(moved, parameter):
                    part._parameters[name] = nn.Parameter(moved, parameter.requires_grad)
        for name, buffer in part._buffers.items():
            if buffer is not None:
                part._buffers[name] = fn(buffer)
    return module


def _same(one: Tensor, other: Tensor) -> bool:
    fake = isinstance(one, FakeTensor) == isinstance(other, FakeTensor)
    return fake and one.device == other.device and one.dtype == other.dtype


def _leaves(*tensors: Tensor) -> list[Tensor]:
    """Return the parameters that tensors depend on."""
    waiting, seen, found = [tensor.grad_fn for tensor in tensors], set(), []
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            found.append(node.variable)
        waiting += [following for following, _ in node.next_functions]
    return found


def _backward(loss: Tensor, *_: Any, **__: Any) -> None:
    assert loss.requires_grad and loss.device == GPU, f"the loss is on {loss.device}"
    assert loss.dim() == 0, "a loss of several numbers"
    for leaf in _leaves(loss):
        assert leaf.device == GPU, f"a parameter of {tuple(leaf.shape)} is on {leaf.device}"
        leaf.grad = torch.zeros_like(leaf) if leaf.grad is None else leaf.grad + 0


def _gradients(
    outputs: Any,
    inputs: Any,
    grad_outputs: Any = None,
    *,
    is_grads_batched: bool = False,
    **_: Any,
) -> tuple[Tensor, ...]:
    several = [inputs] if isinstance(inputs, Tensor) else list(inputs)
    if not is_grads_batched:
        return tuple(torch.zeros_like(each) for each in several)
    given = grad_outputs if isinstance(grad_outputs, Tensor) else grad_outputs[0]
    assert given.device == GPU, f"the gradients to go on from are on {given.device}"
    return tuple(each.new_zeros((len(given), *each.shape)) for each in several)


def _dtype(tensor: Tensor) -> np.dtype[Any]:
    return np.dtype(str(tensor.dtype).removeprefix("torch."))


def _numpy(tensor: Tensor) -> np.ndarray:
    assert tensor.device.type == "cpu", f"numpy() of a tensor on {tensor.device}"
    return np.zeros(tuple(tensor.shape), _dtype(tensor))


def _copied(tensor: Tensor) -> Tensor:
    copy = tensor.detach().clone()
    return nn.Parameter(copy, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else copy


@contextmanager
def fake_cuda() -> Iterator[None]:
    """Give this process a GPU, `cuda:0`, that computes nothing."""
    numpy, deepcopy = Tensor.numpy, Tensor.__deepcopy__

    def as_numpy(tensor: Tensor, **how: Any) -> np.ndarray:
        return _numpy(tensor) if isinstance(tensor, FakeTensor) else numpy(tensor, **how)

    def copied(tensor: Tensor, memo: Any) -> Tensor:
        return _copied(tensor) if isinstance(tensor, FakeTensor) else deepcopy(tensor, memo)

    # First the mode: where there is no GPU yet, it puts a stand-in in the driver's place.
    with (
        FakeTensorMode(allow_non_fake_inputs=True),
        Numbers(),
        pytest.MonkeyPatch.context() as patch,
    ):
        for name, value in {
            "is_available": True,
            "is_bf16_supported": True,
            "device_count": 1,
            "current_device": 0,
            "max_memory_allocated": 0,
        }.items():
            patch.setattr(torch.cuda, name, lambda *_, value=value, **__: value)
        # Autocast asks the build.
        patch.setattr(torch._C, "_is_autocast_available", lambda _: True)
        patch.setattr(nn.Module, "_apply", _apply)
        patch.setattr(Tensor, "backward", _backward)
        patch.setattr(Tensor, "pin_memory", lambda tensor, *_: tensor)
        patch.setattr(Tensor, "numpy", as_numpy)
        patch.setattr(Tensor, "__deepcopy__", copied)
        patch.setattr(torch.autograd, "grad", _gradients)
        yield
