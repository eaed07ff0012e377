"""The published IRNet's checkpoint as its names and shapes, filled at random."""

from __future__ import annotations

import torch
from torch import Tensor

from wsss.models.irnet import IrNet

# Shapes of the published file's branches, as its public model definition has them.
PUBLISHED = {
    **{
        f"fc_edge{i + 1}.0.weight": (32, channels, 1, 1)
        for i, channels in enumerate((64, 256, 512, 1024, 2048))
    },
    **{f"fc_edge{i}.1.{leaf}": (32,) for i in range(1, 6) for leaf in ("weight", "bias")},
    "fc_edge6.weight": (1, 160, 1, 1),
    "fc_edge6.bias": (1,),
    **{
        f"fc_dp{i + 1}.0.weight": (width, channels, 1, 1)
        for i, (width, channels) in enumerate(
            ((64, 64), (128, 256), (256, 512), (256, 1024), (256, 2048), (256, 768), (256, 448))
        )
    },
    **{
        f"fc_dp{i + 1}.1.{leaf}": (width,)
        for i, width in enumerate((64, 128, 256, 256, 256, 256, 256))
        for leaf in ("weight", "bias")
    },
    "fc_dp7.3.weight": (2, 256, 1, 1),
    "fc_dp7.4.running_mean": (2,),
    "fc_dp7.4.running_var": (2,),
    "fc_dp7.4.num_batches_tracked": (),
}


def published_state(net: IrNet) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    state = {name: torch.randn(shape, generator=generator) for name, shape in PUBLISHED.items()}
    for name, tensor in net.backbone.body.state_dict().items():
        head, _, rest = name.partition(".")
        stem = {"conv1": "stage1.0", "bn1": "stage1.1"}
        mine = stem.get(head) or f"stage{int(head[-1]) + 1}.0"
        value = torch.randn(tensor.shape, generator=generator).to(tensor.dtype)
        state[f"{mine}.{rest}"] = value
        state[f"resnet50.{name}"] = value
    return state
