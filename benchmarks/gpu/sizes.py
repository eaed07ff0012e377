"""Part 5: what a picture of a new size costs, against the next one of that size.

Pictures of a data set have hundreds of sizes, and an export sees each at several scales. For every
size that it has not met, cuDNN plans each convolution anew; how long that takes, and which forms of
a network do not wait for it, decides how the stages that apply a network to whole pictures run.
"""

from __future__ import annotations

import time
import types
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.cam_export import network
from benchmarks.gpu.part import Findings, Line, guarded
from wsss.models.lean import lean_classifier
from wsss.runtime.compute import Compute, setup

SIZES = 4
# New sizes that a form is given; the next form gets others, which cuDNN has not met either.
_numbers = iter(range(1000))


def run(device: str, end: float) -> Findings:
    """Time new and known sizes for each form of both networks."""
    on = setup(Compute(device=device, threads=4, workers=0), seed=0)
    if on.type != "cuda":
        yield Line("new sizes", "not run: no GPU")
        return
    _times(_lean("lite0", torch.bfloat16, on), on, sizes=1)  # loads the kernels
    for name, make in _forms(on).items():
        if time.monotonic() > end:
            return
        yield guarded(f"new sizes, {name}", partial(_form, name, make, on))


def _forms(device: torch.device) -> dict[str, Callable[[], Any]]:
    lite = partial(_lean, "lite0", torch.bfloat16, device)
    return {
        "Lite0, as exported": lite,
        "Lite0, new tensors not filled": partial(_unfilled, lite),
        "Lite0, any kernels": partial(_any_kernels, lite),
        "Lite0, 1x1 convolutions as products": lambda: _products(lite()),
        "Lite0, the same, depthwise ones PyTorch's": lambda: _own_depthwise(_products(lite())),
        "Lite0, without cuDNN": lambda: _without_cudnn(lite()),
        "Lite0, float32": partial(_lean, "lite0", torch.float32, device),
        "ResNet-38, as exported": partial(_lean, "resnet38", torch.bfloat16, device),
        "ResNet-38, 1x1 convolutions as products": lambda: _products(
            _lean("resnet38", torch.bfloat16, device)
        ),
        "ResNet-38, without cuDNN": lambda: _without_cudnn(
            _lean("resnet38", torch.bfloat16, device)
        ),
    }


def _lean(name: str, dtype: torch.dtype, device: torch.device) -> Any:
    classifier: Any = network(name, None)
    classifier = classifier.to(device).to(memory_format=torch.channels_last)
    return lean_classifier(classifier, dtype=dtype)


def _unfilled(make: Callable[[], Any]) -> Any:
    torch.utils.deterministic.fill_uninitialized_memory = False
    return make()


def _any_kernels(make: Callable[[], Any]) -> Any:
    torch.use_deterministic_algorithms(False)
    return make()


def _convolutions(built: Any) -> Iterator[nn.Conv2d]:
    for module in built.modules():
        if isinstance(module, nn.Conv2d):
            yield module


def _as_product(self: nn.Conv2d, x: Tensor) -> Tensor:
    bias = None if self.bias is None else self.bias.to(x.dtype)
    weight = self.weight.flatten(1).to(x.dtype)
    return F.linear(x.permute(0, 2, 3, 1), weight, bias).permute(0, 3, 1, 2)


def _products(built: Any) -> Any:
    for module in _convolutions(built):
        plain = module.groups == 1 and module.stride == (1, 1)
        if module.kernel_size == (1, 1) and plain:
            module.forward = types.MethodType(_as_product, module)  # type: ignore[method-assign]
    return built


def _own_depthwise(built: Any) -> Any:
    return _without_cudnn(built, only=lambda module: module.groups > 1)


def _without_cudnn(built: Any, only: Callable[[nn.Conv2d], bool] = lambda module: True) -> Any:
    def forward(of_cudnn: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        with torch.backends.cudnn.flags(enabled=False):
            return of_cudnn(x)

    for module in filter(only, _convolutions(built)):
        module.forward = partial(forward, module.forward)  # type: ignore[method-assign]
    return built


@torch.inference_mode()
def _times(built: Any, device: torch.device, sizes: int = SIZES) -> tuple[float, float]:
    """Return the mean seconds of a picture of a new size, and of the next of the same."""
    new = known = 0.0
    for _ in range(sizes):
        number = next(_numbers)
        x = torch.rand(2, 3, 240 + 3 * number, 320 + 5 * number, device=device)
        x = x.contiguous(memory_format=torch.channels_last)
        spent = []
        for _ in range(3):
            torch.cuda.synchronize(device)
            start = time.perf_counter()
            built.inference_cam(x)
            torch.cuda.synchronize(device)
            spent.append(time.perf_counter() - start)
        new += spent[0] / sizes
        known += spent[-1] / sizes
    return new, known


def _form(name: str, make: Callable[[], Any], device: torch.device) -> Line:
    try:
        new, known = _times(make(), device)
    finally:
        torch.use_deterministic_algorithms(True)
        torch.utils.deterministic.fill_uninitialized_memory = True
    return Line(
        f"new sizes, {name}",
        f"{1e3 * new:.0f} ms a view of a new size (with its mirror image), {1e3 * known:.1f} ms "
        "of a known one",
        values={"new_s": new, "known_s": known},
    )
