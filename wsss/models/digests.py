"""SHA-256 of tensors and of what stands beside them: whether a file still holds what was written.

A bit that flips on a disk or in memory changes weights without anybody's noticing: safetensors has
no checksum, and PyTorch does not look at the ones its files have. So models and checkpoints carry
a digest of their whole content, made from the values and not from the bytes of the file.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor

# Hashing is slower than any disk, and hashlib lets go of the interpreter; more threads than this
# gain nothing beside the copying.
_THREADS = 4
# Plain numbers, one after the other: no quantised, packed or complex ones.
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def content_digest(value: Any) -> str:
    """Return the SHA-256 of nested mappings, lists, tensors and plain values, hexadecimal.

    The order of a mapping's keys, a tensor's device and its layout in memory do not count; types
    do, so that 1, 1.0 and "1" differ.

    Raises:
        TypeError: It holds anything else.
    """
    tensors: list[Tensor] = []
    outline = json.dumps(_outline(value, tensors), ensure_ascii=True)
    with ThreadPoolExecutor(min(_THREADS, os.cpu_count() or 1)) as threads:
        digests = list(threads.map(_tensor_digest, tensors))
    return hashlib.sha256("\n".join([outline, *digests]).encode()).hexdigest()


def _outline(value: Any, tensors: list[Tensor]) -> Any:
    """Return a value as JSON's types, with a tensor's kind and shape in its place."""
    if isinstance(value, Tensor):
        tensors.append(value)
        return ["tensor", str(value.dtype), list(value.shape)]
    if isinstance(value, Mapping):
        # Keys of one mapping may be of several types, as in an optimiser's state.
        pairs = sorted(((repr(key), inner) for key, inner in value.items()), key=lambda one: one[0])
        return ["mapping", [[key, _outline(inner, tensors)] for key, inner in pairs]]
    if isinstance(value, (list, tuple)):
        return ["list", [_outline(inner, tensors) for inner in value]]
    if value is None or isinstance(value, (bool, int, float, str)):
        return [type(value).__name__, repr(value)]
    raise TypeError(f"no digest of a {type(value).__name__}")


def _tensor_digest(tensor: Tensor) -> str:
    plain = tensor.detach().to("cpu").contiguous().reshape(-1).view(torch.uint8)
    return hashlib.sha256(plain.numpy().data).hexdigest()


def unusable(name: str, tensor: Tensor, *, as_float: bool) -> str | None:
    """Say what makes a tensor of a weight file unusable; None: nothing.

    Args:
        name: What it is called.
        tensor: The tensor.
        as_float: Whether its place in a network wants floats, and not counters or positions.
    """
    kind = str(tensor.dtype).removeprefix("torch.")
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.device.type == "meta":
        return f"{name} is no plain dense tensor"
    is_float = tensor.dtype in FLOATS
    if not is_float and (as_float or tensor.is_floating_point() or tensor.is_complex()):
        return f"{name} holds {kind}, not float16, bfloat16, float32 or float64"
    if is_float and not as_float:
        return f"{name} holds {kind}, not whole numbers"
    if is_float and not bool(torch.isfinite(tensor).all()):
        return f"{name} has values that are not finite"
    return None
