"""What a stage sets for its process."""

from __future__ import annotations

import torch

from wsss.runtime.compute import Compute, setup


def test_float32_is_float32_on_gpus_too() -> None:
    torch.backends.cudnn.allow_tf32 = True
    torch.backends.cuda.matmul.allow_tf32 = True
    setup(Compute(device="cpu", threads=torch.get_num_threads()), seed=0)
    assert not torch.backends.cudnn.allow_tf32
    assert not torch.backends.cuda.matmul.allow_tf32
    assert torch.get_float32_matmul_precision() == "highest"
