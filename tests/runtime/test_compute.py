"""What a stage sets for its process."""

from __future__ import annotations

import pytest
import torch

from wsss.errors import UserError
from wsss.project.local import LocalCompute
from wsss.runtime.compute import Compute, setup
from wsss.runtime.faults import explain


def test_float32_is_float32_on_gpus_too() -> None:
    torch.backends.cudnn.allow_tf32 = True
    torch.backends.cuda.matmul.allow_tf32 = True
    setup(Compute(device="cpu", threads=torch.get_num_threads()), seed=0)
    assert not torch.backends.cudnn.allow_tf32
    assert not torch.backends.cuda.matmul.allow_tf32
    assert torch.get_float32_matmul_precision() == "highest"


def test_an_apple_gpu_repeats_nothing_to_the_byte(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    with pytest.raises(UserError, match="no deterministic kernels for 'mps'"):
        setup(Compute(device="mps"), seed=0)
    threads = torch.get_num_threads()
    compute = Compute(device="mps", deterministic=False, threads=threads)
    assert setup(compute, seed=0) == torch.device("mps")
    # Said already where the configuration is read.
    with pytest.raises(UserError, match="deterministic is true with device 'mps'"):
        LocalCompute(device="mps")
    assert LocalCompute(device="mps", deterministic=False).wants_gpu()


@pytest.mark.parametrize(
    "text",
    [
        "CUDA error: out of memory",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "MPS backend out of memory (MPS allocated: 5.6 GB, other allocations: 1.2 GB)",
    ],
)
def test_a_full_gpu_whoever_says_so(text: str) -> None:
    found = explain(RuntimeError(text), "export")
    assert found is not None and "the GPU ran out of memory" in str(found)
    assert explain(RuntimeError("CUDA error: an illegal memory access"), "export") is None
