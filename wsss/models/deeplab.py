"""A backbone and a segmentation head, as DeepLab puts them together."""

from __future__ import annotations

from torch import Tensor, nn

from wsss.models.backbones import Backbone
from wsss.models.heads.registry import HEADS, HeadSettings
from wsss.runtime.registry import load_code


class DeepLab(nn.Module):
    """A backbone and a segmentation head.

    Attributes:
        backbone: The feature pyramid; its `normalisation` is what the input needs.
        head: Turns the pyramid into logits.
        padding_stride: Sides of whole images are best a multiple of this.
    """

    def __init__(self, backbone: Backbone, n_labels: int, config: HeadSettings) -> None:
        super().__init__()
        self.backbone = backbone
        build = load_code(HEADS.get(config.name, where="head.name").build)
        self.head: nn.Module = build(backbone, n_labels, config)
        self.padding_stride = max(backbone.strides)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits of `x` at the head's own resolution.

        Args:
            x: float (B, 3, H, W), normalised with `backbone.normalisation`.

        Returns:
            (B, n_labels, h, w); of DeepLab's heads, stride 4 for V3+ and the backbone's output
            stride otherwise.
        """
        logits: Tensor = self.head(self.backbone(x))
        return logits
