"""Networks whose BatchNorm has statistics of its own, as a trained one has."""

from __future__ import annotations

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


def with_statistics(network: nn.Module) -> nn.Module:
    """Give BatchNorm random statistics and affine parameters, in place."""
    for part in network.modules():
        if isinstance(part, _BatchNorm):
            nn.init.uniform_(part.running_mean, -0.3, 0.3)
            nn.init.uniform_(part.running_var, 0.5, 2.0)
            nn.init.uniform_(part.weight, 0.5, 1.5)
            nn.init.uniform_(part.bias, -0.3, 0.3)
    return network
