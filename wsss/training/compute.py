"""Where and how a stage computes: device, threads, precision, determinism.

Nothing here changes what is computed beyond rounding, so it lives outside every stage's settings
and outside every hash.
"""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from wsss.errors import UserError

Precision = Literal["auto", "float32", "bfloat16"]


@dataclass(frozen=True)
class Compute:
    """Local resources of one stage.

    Attributes:
        device: "auto" (CUDA if there is one), "cuda", "cuda:N" or "cpu".
        threads: Threads of one process for CPU arithmetic. A setting rather than the number of
            cores at hand, because the order of summation, hence the bytes, depends on it.
        workers: Helper processes that load images or run per-image work; never changes a result.
        deterministic: On CUDA, restrict PyTorch to deterministic kernels.
    """

    device: str = "auto"
    threads: int = 2
    workers: int = 2
    deterministic: bool = True

    def __post_init__(self) -> None:
        if self.threads < 1:
            raise UserError(f"compute.threads is {self.threads}", expected="1 or more")
        if self.workers < 0:
            raise UserError(f"compute.workers is {self.workers}", expected="0 or more")
        if self.device not in ("auto", "cpu", "cuda") and not self.device.startswith("cuda:"):
            raise UserError(
                f"compute.device is {self.device!r}", expected='"auto", "cpu", "cuda" or "cuda:N"'
            )

    def torch_device(self) -> torch.device:
        """Return the device to use.

        Raises:
            UserError: A GPU was asked for and there is none.
        """
        if self.device == "auto":
            return torch.device("cuda" if torch.cuda.is_available() else "cpu")
        device = torch.device(self.device)
        if device.type == "cuda":
            count = torch.cuda.device_count()
            if count == 0 or (device.index or 0) >= count:
                raise UserError(
                    f"device {self.device!r} was asked for, and PyTorch sees {count} GPU(s)",
                    where="compute.device",
                    expected="a CUDA GPU, its driver, and a CUDA build of PyTorch",
                    fix='run where there is one, or set compute.device to "auto" or "cpu"',
                )
        return device


def setup(compute: Compute, seed: int) -> torch.device:
    """Prepare this process: threads, global seeds, deterministic kernels. Returns the device."""
    device = compute.torch_device()
    torch.set_num_threads(compute.threads)
    np.random.seed(seed % 2**32)  # noqa: NPY002 - only to pin libraries that use the global state
    torch.manual_seed(seed)
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = not compute.deterministic
        if compute.deterministic:
            # cuBLAS picks a reproducible reduction only with a fixed workspace.
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
            torch.use_deterministic_algorithms(True)
    return device


def resolve_precision(device: torch.device, precision: Precision) -> torch.dtype:
    """Return the dtype that matrix products run in.

    "auto" means bfloat16 on a GPU and float32 on a CPU: on CPUs bfloat16 pays for wide dense
    convolutions but loses on the depthwise ones of light backbones, so there it is asked for
    by name where a measurement shows that it helps.
    """
    if precision == "bfloat16" or (precision == "auto" and device.type == "cuda"):
        return torch.bfloat16
    return torch.float32


def autocast(device: torch.device, precision: Precision) -> AbstractContextManager[object]:
    """Return an autocast context for `precision`; a null context in float32."""
    dtype = resolve_precision(device, precision)
    if dtype == torch.float32:
        return nullcontext()
    return torch.autocast(device.type, dtype=dtype)
