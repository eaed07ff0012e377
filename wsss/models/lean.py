"""Trained convolutional networks rewritten for inference: less work, less memory.

What only training or other heads need is left out (class logits, the shallow features), a BatchNorm
goes into the convolution before it, weights are rounded once instead of in every pass, and a tensor
is freed after its last use. The results stay the same but for rounding.
"""

from __future__ import annotations

import torch
from timm.layers import BatchNormAct2d  # type: ignore[attr-defined]  # moved within timm
from torch import Tensor, fx, nn

from wsss.models.any_size import plan_nothing
from wsss.models.backbones import Backbone
from wsss.models.classifier import Classifier, InferenceCam
from wsss.models.reconstructor import CamClassifier
from wsss.models.traced import before_frozen_batchnorm, folded, traced


class LeanClassifier(Classifier):
    """CAMs of a classifier, its features, and nothing else; see `lean_classifier`."""

    def __init__(self, graph: fx.GraphModule, like: CamClassifier, dtype: torch.dtype) -> None:
        super().__init__()
        self.graph = graph
        self.head = like.export_head()
        self.gives_features = like.gives_features
        self.dtype = dtype
        self.normalisation = like.normalisation
        self.size_multiple = like.size_multiple
        self.map_epsilon = like.map_epsilon

    def inference_cam(self, x: Tensor, *, attention: bool = False) -> InferenceCam:
        """Return the CAMs, (B, C, h, w) float32, of normalised images (B, 3, H, W)."""
        if attention:
            return super().inference_cam(x, attention=True)
        feature = self._backbone_feature(x)
        # A small part of the work, and the one whose rounding nothing evens out.
        with torch.autocast(x.device.type, enabled=False):
            return InferenceCam(self.head(feature.float()), None)

    @property
    def class_weights(self) -> Tensor:
        """The head's last layer, (C, D)."""
        return self.head.class_weights

    def features(self, x: Tensor) -> Tensor:
        """Return what the head's last layer reads, (B, D, h, w) float32."""
        feature = self._backbone_feature(x)
        with torch.autocast(x.device.type, enabled=False):
            return self.head.last_features(feature.float())

    def _backbone_feature(self, x: Tensor) -> Tensor:
        rounds = self.dtype != torch.float32
        with torch.autocast(x.device.type, dtype=self.dtype if rounds else None, enabled=rounds):
            feature: Tensor = self.graph(x)
        return feature


def lean_classifier(classifier: Classifier, *, dtype: torch.dtype) -> Classifier:
    """Rewrite a trained classifier for CAMs alone.

    Args:
        classifier: In eval mode, where it is to compute. It is taken apart: do not use it after.
        dtype: What convolutions compute in, float32 or bfloat16; the head, and normalisation that
            is left, stay in float32.

    Returns:
        The lean one; `classifier` itself, untouched, where it is not a CAM head on a network whose
        operations are the same for every input.
    """
    if not isinstance(classifier, CamClassifier):
        return classifier
    graph = lean_network(_LastFeature(classifier), dtype=dtype)
    if not isinstance(graph, fx.GraphModule):
        return classifier
    return LeanClassifier(graph, classifier, dtype).eval()


def lean_network(network: nn.Module, *, dtype: torch.dtype) -> nn.Module:
    """Rewrite a trained network for inference.

    Args:
        network: In eval mode, where it is to compute. It is taken apart: do not use it after.
        dtype: What convolutions compute in, float32 or bfloat16: the latter under autocast, which
            gives them their input in it.

    Returns:
        The lean one, a `torch.fx.GraphModule`; `network` itself, untouched, where its operations
        are not the same for every input.
    """
    graph = traced(network)
    if graph is None:
        return network
    _fold_batchnorm(graph)
    for module in graph.modules():
        if isinstance(module, nn.Conv2d):
            for name, parameter in list(module.named_parameters(recurse=False)):
                setattr(module, name, _frozen(parameter.to(dtype)))
    if any(parameter.is_cuda for parameter in graph.parameters()):
        plan_nothing(graph)
    graph.to(memory_format=torch.channels_last)
    return graph.eval()


def lean_backbone(backbone: Backbone, *, dtype: torch.dtype) -> Backbone:
    """Rewrite a trained backbone for inference; `lean_network` says how."""
    graph = lean_network(backbone, dtype=dtype)
    if graph is backbone:
        return backbone
    return Backbone(
        graph,
        channels=backbone.channels,
        strides=backbone.strides,
        normalisation=backbone.normalisation,
    ).eval()


class _LastFeature(nn.Module):
    def __init__(self, classifier: CamClassifier) -> None:
        super().__init__()
        self.backbone = classifier.backbone

    def forward(self, x: Tensor) -> Tensor:
        feature: Tensor = self.backbone(x)[-1]
        return feature


def _fold_batchnorm(graph: fx.GraphModule) -> None:
    for source, node in before_frozen_batchnorm(graph):
        conv, norm = graph.get_submodule(str(source.target)), graph.get_submodule(str(node.target))
        assert isinstance(conv, nn.Conv2d)
        conv.weight, conv.bias = map(_frozen, folded(conv, norm))
        if isinstance(norm, BatchNormAct2d):
            graph.set_submodule(str(node.target), norm.act)
        else:
            node.replace_all_uses_with(source)
            graph.graph.erase_node(node)
    graph.delete_all_unused_submodules()
    graph.graph.lint()
    graph.recompile()


def _frozen(tensor: Tensor) -> nn.Parameter:
    return nn.Parameter(tensor.detach(), requires_grad=False)
