from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wsss.errors import UserError
from wsss.models.resnet38 import (
    CHANNELS,
    STRIDES,
    ResNet38,
    load_weights,
    rename_from_mxnet,
    rename_from_pytorch,
)

DATA = Path(__file__).parents[1] / "reference"
HEADS = ("fc8", "fc9", "fc_recon", "dr1", "dr2", "genUnet")


def published_shapes() -> dict[str, tuple[int, ...]]:
    """Backbone tensors of the released checkpoint, without prefix."""
    names = json.loads((DATA / "acr_official_checkpoint_names.json").read_text())
    return {
        name.removeprefix("net_main."): tuple(shape)
        for name, shape in names.items()
        if name.startswith("net_main.") and not name.split(".")[1].startswith(HEADS)
    }


def mxnet_name(name: str) -> str:
    """Write a PyTorch port's name the way the MXNet file has it (an independent inverse)."""
    if name == "conv1a.weight":
        return "arg:conv1a_weight"
    fields = {"running_mean": "aux:moving_mean", "running_var": "aux:moving_var"}
    block, *middle, field = name.split(".")
    if block == "bn7":
        where, norm = "bn7", True
    else:
        stage, _, index = block[1:].partition("_")
        kind, branch = middle[0].split("_")
        norm = kind == "bn"
        where = f"{'bn' if norm else 'res'}{stage}{'b' + index if index else 'a'}_{branch}"
    if not norm:
        return f"arg:{where}_weight"
    if field in fields:
        group, written = fields[field].split(":")
        return f"{group}:{where}_{written}"
    return f"arg:{where}_{ {'weight': 'gamma', 'bias': 'beta'}[field] }"


def test_tensors_are_the_published_ones():
    with torch.device("meta"):
        ours = {key: tuple(v.shape) for key, v in ResNet38().state_dict().items()}
    theirs = {rename_from_pytorch(key): shape for key, shape in published_shapes().items()}
    assert ours == theirs


def test_mxnet_names_reach_the_same_tensors():
    for name in published_shapes():
        if not name.endswith("num_batches_tracked"):
            assert rename_from_mxnet(mxnet_name(name)) == rename_from_pytorch(name)


@pytest.fixture(scope="module")
def network() -> ResNet38:
    torch.manual_seed(0)
    net = ResNet38()
    for part in net.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.uniform_(part.weight, 0.5, 1.5)
            nn.init.normal_(part.bias, std=0.1)
            nn.init.normal_(part.running_mean, std=0.1)
            nn.init.uniform_(part.running_var, 0.5, 1.5)
    return net.eval()


def naive_features(state: dict[str, Tensor], x: Tensor) -> list[Tensor]:
    """The network from its description, on tensors by published names; no dropout."""

    def norm(x: Tensor, name: str) -> Tensor:
        fields = [state[f"{name}.{f}"] for f in ("running_mean", "running_var", "weight", "bias")]
        mean, var, weight, bias = (field.view(1, -1, 1, 1) for field in fields)
        return ((x - mean) / (var + 1e-5).sqrt() * weight + bias).clamp(min=0)

    features = []
    x = F.conv2d(x, state["conv1a.weight"], padding=1)
    for stage, blocks in {"b2": 3, "b3": 3, "b4": 6, "b5": 3, "b6": 1, "b7": 1}.items():
        for i in range(blocks):
            name = stage if i == 0 else f"{stage}_{i}"
            stride = 2 if i == 0 and stage in ("b2", "b3", "b4") else 1
            a = norm(x, f"{name}.bn_branch2a")
            if i == 0 and stage in ("b3", "b4", "b5", "b6"):
                features.append(a)
            weight = {
                k: state.get(f"{name}.conv_{k}.weight")
                for k in ("branch1", "branch2a", "branch2b1", "branch2b2")
            }
            start = x if i else F.conv2d(a, weight["branch1"], stride=stride)
            if stage in ("b6", "b7"):
                y = F.conv2d(a, weight["branch2a"])
                y = norm(y, f"{name}.bn_branch2b1")
                y = F.conv2d(y, weight["branch2b1"], padding=4, dilation=4)
                y = norm(y, f"{name}.bn_branch2b2")
                y = F.conv2d(y, weight["branch2b2"])
            else:
                second = 2 if stage == "b5" else 1
                first = 1 if i == 0 else second
                y = F.conv2d(a, weight["branch2a"], stride=stride, padding=first, dilation=first)
                y = norm(y, f"{name}.bn_branch2b1")
                y = F.conv2d(y, weight["branch2b1"], padding=second, dilation=second)
            x = start + y
    features.append(norm(x, "bn7"))
    return features


def test_features_are_those_of_the_description(network):
    ours_by_name = network.state_dict()
    state = {name: ours_by_name[rename_from_pytorch(name)] for name in published_shapes()}
    x = torch.randn(1, 3, 40, 48)
    with torch.no_grad():
        ours, naive = network(x), naive_features(state, x)
    for a, b, channels, stride in zip(ours, naive, CHANNELS, STRIDES, strict=True):
        assert a.shape == (1, channels, 40 // stride, 48 // stride)
        assert torch.allclose(a, b, rtol=1e-4, atol=1e-4 * float(b.abs().max()))


def test_dropout_is_before_the_bottlenecks_second_and_third_convolution(network):
    seen: list[tuple[int, int]] = []
    handles = [
        network.blocks[name].dropout.register_forward_hook(
            lambda module, args, output: seen.append((output.shape[1], module.p))
        )
        for name in ("b6", "b7")
    ]
    network(torch.randn(1, 3, 16, 16))
    for handle in handles:
        handle.remove()
    assert seen == [(512, 0.2), (1024, 0.2), (1024, 0.2), (2048, 0.2)]


def test_loads_a_ports_file_and_leaves_out_its_classifier(network, tmp_path):
    ours_by_name = network.state_dict()
    state = {name: ours_by_name[rename_from_pytorch(name)] for name in published_shapes()}
    state["fc8.weight"] = torch.zeros(10, 4096, 1, 1)
    torch.save(state, tmp_path / "w.pth")
    fresh = ResNet38()
    report = load_weights(fresh, tmp_path / "w.pth")
    assert report.left_out == ("fc8.weight",)
    assert all(torch.equal(v, ours_by_name[k]) for k, v in fresh.state_dict().items())
    del state["b4_3.conv_branch2a.weight"]
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(UserError, match=r"blocks\.b4_3\.conv1"):
        load_weights(fresh, tmp_path / "w.pth")
