"""Where and how a stage computes: device, threads, precision, determinism.

Nothing here changes what is computed beyond rounding, so it lives outside every stage's settings
and outside every hash.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import numpy as np
import torch

from wsss.errors import UserError
from wsss.runtime.device_names import DEVICES, is_device
from wsss.runtime.processes import Processes
from wsss.runtime.settings import Precision

# Instructions that multiply bfloat16 numbers as they are.
BFLOAT16_INSTRUCTIONS = ("avx512_bf16", "amx_bf16")


@dataclass(frozen=True, kw_only=True)
class Device:
    """What every stage with a network uses of the machine.

    Attributes:
        device: auto (CUDA if there is one), cpu, cuda, cuda:<number>, or mps (Apple's GPU).
        threads: Threads of one process for CPU arithmetic. A setting rather than the number of
            cores at hand, because the order of summation, hence the bytes, depends on it.
        deterministic: On CUDA, restrict PyTorch to deterministic kernels. There are none for mps.
    """

    device: str = "auto"
    threads: int = 2
    deterministic: bool = True

    def __post_init__(self) -> None:
        if self.threads < 1:
            raise UserError(f"compute.threads is {self.threads}", expected="1 or more")
        if not is_device(self.device):
            raise UserError(f"compute.device is {self.device!r}", expected=DEVICES)

    def torch_device(self) -> torch.device:
        """Return the device to use; of several processes of a node, each takes a GPU of its own.

        Raises:
            UserError: A GPU was asked for and there is none.
        """
        processes = Processes.here()
        if self.device == "auto" and processes.size == 1 and not torch.cuda.is_available():
            return torch.device("cpu")
        if processes.size > 1 and (self.device.startswith("cuda:") or self.device == "mps"):
            raise UserError(
                f"device {self.device!r} was asked for by each of {processes.size} processes",
                where="compute.device",
                expected='"cuda": each takes a GPU of its own',
            )
        device = torch.device("cuda" if self.device == "auto" else self.device)
        if device.type == "mps" and not torch.backends.mps.is_available():
            raise UserError(
                "device 'mps' was asked for, and PyTorch sees no Apple GPU",
                where="compute.device",
                expected="a Mac with an Apple GPU, and a build of PyTorch that uses it",
                fix='run where there is one, or set compute.device to "auto" or "cpu"',
            )
        if device.type == "cuda":
            if processes.size > 1:
                device = torch.device("cuda", processes.local_rank)
            count = torch.cuda.device_count()
            if count == 0 or (device.index or 0) >= count:
                raise UserError(
                    f"device '{device}' was asked for, and PyTorch sees {count} GPU(s)",
                    where="compute.device",
                    expected="a CUDA GPU, its driver, and a CUDA build of PyTorch"
                    + ("; one for each process of the node" if processes.size > 1 else ""),
                    fix="set compute.gpus to what there is, or compute.device to cpu"
                    if processes.size > 1
                    else 'run where there is one, or set compute.device to "auto" or "cpu"',
                )
        return device


@dataclass(frozen=True, kw_only=True)
class InferenceCompute(Device):
    """What a stage uses that applies a trained network to many images.

    Attributes:
        workers: Helper processes that load images or run per-image work; never changes a result.
    """

    workers: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.workers < 0:
            raise UserError(f"compute.workers is {self.workers}", expected="0 or more")


@dataclass(frozen=True, kw_only=True)
class Compute(InferenceCompute):
    """What a training uses.

    Attributes:
        micro_batch: Images that go through the networks at once, where a process's share of a
            batch does not fit the device; gradients are added up, and the step is the same.
            None: the whole share.
        checkpoint_minutes: Time between two checkpoints.
    """

    micro_batch: int | None = None
    checkpoint_minutes: float = 5.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.micro_batch is not None and self.micro_batch < 1:
            raise UserError(f"compute.micro_batch is {self.micro_batch}", expected="1 or more")


@dataclass(frozen=True, kw_only=True)
class FeatureCompute(Compute):
    """What a training uses that may stand on a frozen network.

    Attributes:
        feature_cache_gb: How much is kept at most of a frozen transformer's features, which then
            sees a picture once rather than in every epoch; 0: nothing.
    """

    feature_cache_gb: float = 0.0


def setup(compute: Device, seed: int, *, trains: bool = False) -> torch.device:
    """Prepare this process: threads, seeds, deterministic kernels, float32 that is float32.

    Returns the device.

    Args:
        compute: What to use.
        seed: For all global generators.
        trains: Whether this is a training, which several processes may run together.

    Raises:
        UserError: No such device, or several processes were started for what one does.
    """
    processes = Processes.here()
    if processes.size > 1 and not trains:
        raise UserError(
            f"{processes.size} processes were started for a stage that one process runs",
            where="RANK and WORLD_SIZE in the environment",
            expected="torchrun for the three trainings only",
            fix="start it without torchrun; unset RANK and WORLD_SIZE",
        )
    device = compute.torch_device()
    if processes.size > 1 and device.type == "cuda":
        torch.cuda.set_device(device)  # NCCL and allocations without a name follow it
    if device.type == "mps" and compute.deterministic:
        raise UserError(
            "deterministic is true, and PyTorch has no deterministic kernels for 'mps'",
            where="compute.deterministic",
            expected="false on an Apple GPU, where a run does not repeat to the byte",
            fix="set compute.deterministic to false, or compute.device to cpu",
        )
    torch.set_num_threads(compute.threads)
    np.random.seed(seed % 2**32)  # noqa: NPY002 - only to pin libraries that use the global state
    torch.manual_seed(seed)
    # By default a GPU's convolutions in float32 keep 10 of 23 bits of what they multiply.
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False
    if device.type == "cuda":
        # Trying out kernels pays where one size comes again and again: in training, not where a
        # network is applied to pictures of any size, each of which would be tried out anew.
        torch.backends.cudnn.benchmark = trains and not compute.deterministic
        if compute.deterministic:
            # cuBLAS picks a reproducible reduction only with a fixed workspace.
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
            torch.use_deterministic_algorithms(True)
            # With that, PyTorch also fills every new tensor, a kernel each. On a CPU, where nothing
            # is filled, the same code repeats to the byte: it reads no memory before writing it.
            torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
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


def convolution_dtype(device: torch.device, precision: Precision) -> torch.dtype:
    """Return what a trained convolutional network is applied in.

    "auto" is bfloat16 where the device multiplies it: on GPUs, and on CPUs with the instructions.
    There it takes half the time of float32 or less, the depthwise convolutions of light networks
    included (in training those lose by it), and changes the mIoU of EfficientNet-Lite0's seeds,
    pseudo-labels and predictions by less than 0.1.
    """
    if precision == "auto" and device.type == "cpu":
        # torch.cpu.get_capabilities is newer than the oldest PyTorch supported.
        known: Mapping[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
        native = any(known.get(name, False) for name in BFLOAT16_INSTRUCTIONS)
        return torch.bfloat16 if native else torch.float32
    return resolve_precision(device, precision)


def cast_to(device: torch.device, dtype: torch.dtype) -> AbstractContextManager[object]:
    """Return an autocast context for `dtype`; a null context in float32."""
    if dtype == torch.float32:
        return nullcontext()
    return torch.autocast(device.type, dtype=dtype)


def autocast(device: torch.device, precision: Precision) -> AbstractContextManager[object]:
    """Return an autocast context for `precision`; a null context in float32."""
    return cast_to(device, resolve_precision(device, precision))
