"""Networks as lists of their operations, and what in them can be computed otherwise."""

from __future__ import annotations

from collections import Counter
from typing import Any

from timm.layers import BatchNormAct2d, Conv2dSame  # type: ignore[attr-defined]
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _BatchNorm

from wsss.models.vit_features import VitFeatures

Pair = tuple[fx.Node, fx.Node]


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        # Convolutions of timm pad by their input's size, which has to be looked at in every pass.
        # A transformer pads and resizes its positions by it.
        leaf = isinstance(m, (nn.Conv2d, _BatchNorm, VitFeatures))
        return leaf or super().is_leaf_module(m, module_qualified_name)


def traced(network: nn.Module) -> fx.GraphModule | None:
    """Record the operations of a network, in the mode it is in.

    Returns:
        They, with the network's own modules; None where they are not the same for every input.
    """
    try:
        graph = fx.GraphModule(network, _Tracer().trace(network))
    except Exception:
        # Its Python code asks for values, types or sizes, which a recorded list cannot, and may
        # raise whatever it likes at what it is given instead.
        return None
    graph.graph.eliminate_dead_code()
    return graph


def before_frozen_batchnorm(graph: fx.GraphModule) -> list[Pair]:
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
        if alone and _is_plain(modules[str(source.target)]):
            found.append((source, node))
    return found


def before_convolutions_alone(graph: fx.GraphModule) -> list[fx.Node]:
    """Return timm's BatchNorms with an activation whose results only convolutions read."""
    modules: dict[str, Any] = dict(graph.named_modules())
    calls = Counter(node.target for node in graph.graph.nodes if node.op == "call_module")

    def read_by_convolutions(node: fx.Node) -> bool:
        for user in node.users:
            module = modules.get(str(user.target)) if user.op == "call_module" else None
            if isinstance(module, nn.Identity):
                if not read_by_convolutions(user):
                    return False
            elif not isinstance(module, nn.Conv2d):
                return False
        return bool(node.users)

    return [
        node
        for node in graph.graph.nodes
        if node.op == "call_module"
        and isinstance(modules[str(node.target)], BatchNormAct2d)
        and calls[node.target] == 1
        and read_by_convolutions(node)
    ]


def folded(conv: nn.Conv2d, norm: Any) -> tuple[Tensor, Tensor]:
    """Return weights and bias of a convolution that does what a frozen BatchNorm behind it did.

    Args:
        conv: The convolution, with weights (O, I, k, l).
        norm: A BatchNorm of fixed statistics over O channels.

    Returns:
        (O, I, k, l) and (O,), in the type of the convolution's weights; their gradients are those
        of the convolution's.
    """
    dtype = conv.weight.dtype
    scale = (norm.running_var.double() + norm.eps).rsqrt()
    if norm.weight is not None:
        scale = scale * norm.weight.double()
    bias = -norm.running_mean.double() * scale
    if norm.bias is not None:
        bias = bias + norm.bias.double()
    if conv.bias is not None:
        bias = bias + conv.bias.double() * scale
    return conv.weight * scale.to(dtype)[:, None, None, None], bias.to(dtype)


def _is_frozen(module: nn.Module | None) -> bool:
    """Whether `module` is a BatchNorm by fixed statistics, whose computation is known here."""
    if not isinstance(module, _BatchNorm) or module.training or module.running_var is None:
        return False
    return isinstance(module, BatchNormAct2d) or type(module).forward is _BatchNorm.forward


def _is_plain(module: nn.Module) -> bool:
    """Whether `module` is a convolution of its weights as they are."""
    return (
        isinstance(module, nn.Conv2d)
        # One that was folded for a training has another `forward`, and stays as it is.
        and type(module).forward in (nn.Conv2d.forward, Conv2dSame.forward)
        and type(module)._conv_forward is nn.Conv2d._conv_forward
    )
