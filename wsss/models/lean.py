"""Trained convolutional networks rewritten for inference: less work, less memory.

What only training or other heads need is left out (class logits, the shallow features), a BatchNorm
goes into the convolution before it, weights are rounded once instead of in every pass, and a tensor
is freed after its last use. The results stay the same but for rounding.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from timm.layers import BatchNormAct2d  # type: ignore[attr-defined]  # moved within timm
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _BatchNorm

from wsss.models.any_size import plan_nothing
from wsss.models.backbones import Backbone
from wsss.models.classifier import Classifier, InferenceCam
from wsss.models.reconstructor import CamClassifier
from wsss.models.vit_features import VitFeatures


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
    try:
        graph = _trace(network)
    except (fx.proxy.TraceError, TypeError, RuntimeError):
        # Its Python code asks for values or sizes, which a recorded list of operations cannot.
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


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        # Convolutions of timm pad by their input's size, which has to be looked at in every pass.
        # A transformer pads and resizes its positions by it.
        leaf = isinstance(m, (nn.Conv2d, _BatchNorm, VitFeatures))
        return leaf or super().is_leaf_module(m, module_qualified_name)


def _trace(network: nn.Module) -> fx.GraphModule:
    graph = fx.GraphModule(network, _Tracer().trace(network))
    graph.graph.eliminate_dead_code()
    return graph


def _fold_batchnorm(graph: fx.GraphModule) -> None:
    for source, node in _pairs(graph):
        conv, norm = graph.get_submodule(str(source.target)), graph.get_submodule(str(node.target))
        assert isinstance(conv, nn.Conv2d)
        _fold(conv, norm)
        if isinstance(norm, BatchNormAct2d):
            graph.set_submodule(str(node.target), norm.act)
        else:
            node.replace_all_uses_with(source)
            graph.graph.erase_node(node)
    graph.delete_all_unused_submodules()
    graph.graph.lint()
    graph.recompile()


def _pairs(graph: fx.GraphModule) -> list[tuple[fx.Node, fx.Node]]:
    """Return the convolutions whose only use is one frozen BatchNorm, each with it."""
    modules: dict[str, Any] = dict(graph.named_modules())
    calls = Counter(node.target for node in graph.graph.nodes if node.op == "call_module")
    found = []
    for node in graph.graph.nodes:
        norm = modules.get(str(node.target)) if node.op == "call_module" else None
        source = node.args[0] if node.args else None
        if not _is_frozen(norm) or not isinstance(source, fx.Node) or source.op != "call_module":
            continue
        alone = len(source.users) == 1 and calls[source.target] == calls[node.target] == 1
        conv = modules[str(source.target)]
        # One that was folded for a training computes with its BatchNorm as it is.
        if isinstance(conv, nn.Conv2d) and alone and "folded" not in vars(conv):
            found.append((source, node))
    return found


def convolutions_before_batchnorm(network: nn.Module) -> list[tuple[nn.Conv2d, _BatchNorm]]:
    """Return a network's convolutions whose only use is one frozen BatchNorm, each with it.

    None where its operations are not the same for every input.
    """
    try:
        graph = _trace(network)
    except (fx.proxy.TraceError, TypeError, RuntimeError):
        return []
    found = []
    for source, node in _pairs(graph):
        conv, norm = (
            network.get_submodule(str(source.target)),
            network.get_submodule(str(node.target)),
        )
        assert isinstance(conv, nn.Conv2d)
        assert isinstance(norm, _BatchNorm)
        found.append((conv, norm))
    return found


def _is_frozen(module: nn.Module | None) -> bool:
    """Whether `module` is a BatchNorm by fixed statistics, whose computation is known here."""
    if not isinstance(module, _BatchNorm) or module.training or module.running_var is None:
        return False
    return isinstance(module, BatchNormAct2d) or type(module).forward is _BatchNorm.forward


def _fold(conv: nn.Conv2d, norm: Any) -> None:
    scale = (norm.running_var.double() + norm.eps).rsqrt()
    if norm.weight is not None:
        scale = scale * norm.weight.double()
    bias = -norm.running_mean.double() * scale
    if norm.bias is not None:
        bias = bias + norm.bias.double()
    if conv.bias is not None:
        bias = bias + conv.bias.double() * scale
    dtype = conv.weight.dtype
    conv.weight = _frozen(conv.weight.detach() * scale.to(dtype)[:, None, None, None])
    conv.bias = _frozen(bias.to(dtype))


def _frozen(tensor: Tensor) -> nn.Parameter:
    return nn.Parameter(tensor.detach(), requires_grad=False)
