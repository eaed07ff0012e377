"""What both updates of ACR's step share, and how a network is kept from changing in one of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from wsss.training.distributed import Split


@dataclass(frozen=True)
class StepInputs:
    """What both updates of a step share, of a batch or of a part of it.

    Attributes:
        x: (B, 3, S, S), normalised for the networks.
        image: The reconstruction's aim I, ImageNet-normalised, (B, 3, P, P), P the decoded side.
        label: float (B, C).
        target: int64 (B,), the class drawn for each image.
        grid: g at the decoded side, (B, 1, P, P); None without remnant feeding.
        share: What part of the whole batch these images are.
        anchor_x: As `x`, normalised for the frozen classifier; None: without one.
    """

    x: Tensor
    image: Tensor
    label: Tensor
    target: Tensor
    grid: Tensor | None
    share: float = 1.0
    anchor_x: Tensor | None = None

    @property
    def side_px(self) -> int:
        """The decoded side P."""
        return self.image.shape[-1]

    def parts(self, split: Split) -> list[StepInputs]:
        """Return what goes together through the networks."""
        images = len(self.image)
        return [
            StepInputs(
                x=self.x[part],
                image=self.image[part],
                label=self.label[part],
                target=self.target[part],
                grid=None if self.grid is None else self.grid[part],
                share=split.share(part, images),
                anchor_x=None if self.anchor_x is None else self.anchor_x[part],
            )
            for part in split.parts(images)
        ]


def is_deterministic(module: nn.Module) -> bool:
    """Return whether `module`, in training mode, computes what it would in eval mode."""
    for part in module.modules():
        if isinstance(part, _DropoutNd) and part.p > 0:
            return False
        # timm's stochastic depth, by name: a process without a network of timm has no timm.
        if type(part).__name__ == "DropPath" and getattr(part, "drop_prob", False):
            return False
        if isinstance(part, _BatchNorm) and part.training:
            return False
    return True


@contextmanager
def held(module: nn.Module) -> Iterator[None]:
    """Keep gradients from the parameters of `module`, and dropout from acting."""
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    for parameter in trained:
        parameter.requires_grad_(False)
    module.eval()
    try:
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)
        module.train()
