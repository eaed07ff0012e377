"""MCTformerV2 as a classifier that CAM methods train (MCTformer, CVPR 2022)."""

from __future__ import annotations

import torch
from torch import Tensor

from wsss.models.classifier import Classifier, InferenceCam
from wsss.models.vit import MCTformerV2, fused_cam


class TransformerClassifier(Classifier):
    """Two scores, of class tokens and of patches, and the fused CAM.

    Args:
        network: The transformer.

    Attributes:
        network: The transformer.
    """

    # As MCTformer normalises: fused CAMs are small, since attention is spread over all patches.
    map_epsilon = 1e-8
    gives_attention = True

    def __init__(self, network: MCTformerV2) -> None:
        super().__init__()
        self.network = network
        self.normalisation = network.normalisation
        self.size_multiple = network.patch_px

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Classify images; the fused CAM's gradient reaches both of its factors.

        Args:
            x: float (B, 3, H, W), normalised; H and W multiples of `size_multiple`.

        Returns:
            Class logits, (B, 2, C): of the class tokens, of the patches; and the fused CAM,
            (B, C, h, w) >= 0.
        """
        output = self.network(x, attention="class")
        logits = torch.stack([output.class_logit, output.patch_logit], dim=1)
        return logits, fused_cam(output)

    def classify(self, x: Tensor) -> Tensor:
        """Return both scores, (B, 2, C), by timm's own fused blocks."""
        output = self.network(x)
        return torch.stack([output.class_logit, output.patch_logit], dim=1)

    def inference_cam(self, x: Tensor, *, attention: bool = False) -> InferenceCam:
        """Return the fused CAM, the patch CAM detached as in MCTformer, and patch attention."""
        output = self.network(x, attention="all" if attention else "class")
        return InferenceCam(fused_cam(output, detach_patch_cam=True), output.patch_attention)
