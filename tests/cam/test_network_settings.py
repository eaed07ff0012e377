"""Settings of the classifiers' networks: which backbone, which transformer, and how it learns."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F
from cam_settings import cam_settings
from distributed_cases import one_thread_count
from hub_helpers import cached_repository
from safetensors.torch import save_file
from torch import Tensor

from wsss.cam.methods.plain import build_classifier
from wsss.cam.model_file import cam_task
from wsss.models.config import BackboneConfig

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    with one_thread_count():
        torch.set_num_threads(1)
        yield


# --- backbone ------------------------------------------------------------------------------------


def classifier(**backbone: Any) -> Any:
    torch.manual_seed(1)
    return build_classifier(cam_settings({"method": "cam", "backbone": backbone}), 3)


@pytest.mark.setting("cam.backbone.name", "cam.backbone.weights", "cam.backbone.output_stride")
@pytest.mark.parametrize("stride", [8, 32])
def test_the_cam_is_that_of_timms_network(stride: int) -> None:
    network = classifier(name="test_efficientnet", weights="none", output_stride=stride).eval()
    whole = timm.create_model("test_efficientnet", features_only=True, output_stride=stride)
    torch.manual_seed(1)  # what the network was drawn with
    drawn = timm.create_model("test_efficientnet", features_only=True, output_stride=stride)
    whole.load_state_dict(network.backbone.body.state_dict())
    assert torch.equal(drawn.conv_stem.weight, whole.conv_stem.weight)
    x = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        feature = whole.eval()(x)[-1]
        assert feature.shape[-2:] == (64 // stride, 96 // stride)
        naive = torch.einsum("cd,bdhw->bchw", network.head.classes.weight[:, :, 0, 0], feature)
        torch.testing.assert_close(network(x)[1], naive)


@pytest.mark.setting("cam.backbone.weights")
def test_weights_that_timm_names_are_the_classifiers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = cached_repository(monkeypatch, tmp_path, "timm/test_efficientnet.r160_in1k")
    whole = timm.create_model("test_efficientnet", pretrained=False)
    save_file(whole.state_dict(), folder / "model.safetensors")
    network = classifier(name="test_efficientnet", weights="timm")
    ours = network.backbone.body.state_dict()
    assert all(torch.equal(value, whole.state_dict()[name]) for name, value in ours.items())


@pytest.mark.setting("cam.backbone.final_conv")
def test_the_classifier_reads_the_final_convolution() -> None:
    network = classifier(name="test_efficientnet", weights="none", final_conv=True).eval()
    whole = timm.create_model("test_efficientnet", num_classes=0, output_stride=16).eval()
    whole.load_state_dict(network.backbone.body.state_dict())
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        feature = whole.forward_features(x)
        naive = torch.einsum("cd,bdhw->bchw", network.head.classes.weight[:, :, 0, 0], feature)
        torch.testing.assert_close(network(x)[1], naive)


@pytest.mark.setting("cam.backbone.layers", "cam.backbone.frozen")
def test_a_frozen_transformer_gives_the_features_of_its_blocks() -> None:
    network = classifier(
        name="test_vit", weights="none", output_stride=None, layers=[0, 3], frozen=True
    )
    whole = timm.create_model("test_vit", num_classes=0, dynamic_img_size=True)
    body = network.backbone.body.body
    whole.load_state_dict(body.state_dict())
    x = torch.randn(1, 3, 64, 64)
    seen: list[Tensor] = []
    for index in (0, 3):
        whole.blocks[index].register_forward_hook(lambda _, __, out: seen.append(out))
    with torch.no_grad():
        whole.eval()(x)
        features = network.eval().backbone(x)
        for found, tokens in zip(features, seen, strict=True):
            expected = whole.norm(tokens)[:, 1:].transpose(1, 2).reshape(found.shape)
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
        naive = torch.einsum("cd,bdhw->bchw", network.head.classes.weight[:, :, 0, 0], features[-1])
        torch.testing.assert_close(network(x)[1], naive)
    network.train()(x)[0].sum().backward()
    assert {name for name, p in network.named_parameters() if p.grad is not None} == {
        "head.classes.weight"
    }


def test_layers_are_refused_where_there_are_none() -> None:
    with pytest.raises(Exception, match=r"backbone\.layers is set"):
        BackboneConfig(layers=(1,))


# --- transformer ---------------------------------------------------------------------------------

VIT: dict[str, Any] = {
    "name": "deit_tiny_patch16_224", "depth": 3, "class_attention_layers": 1, "drop_path": 0.3,
    "learning_rate_at_512": 8e-4, "final_learning_rate": 2e-6, "warmup_learning_rate": 3e-6,
    "warmup_epochs": 2.0, "weight_decay": 0.2,
}  # fmt: skip


@pytest.fixture
def task() -> Any:
    torch.manual_seed(1)
    run = {"epochs": 10, "batch_size": 32, "crop_px": 32, "precision": "float32"}
    return cam_task(cam_settings({"method": "mct", "vit": VIT, **run}), 2, device=CPU)


@pytest.mark.setting("cam.vit.name", "cam.vit.depth", "cam.vit.drop_path")
def test_the_transformer_is_timms(task: Any) -> None:
    network = task.classifier.network
    assert len(network.blocks) == 3
    plain = timm.create_model("deit_tiny_patch16_224", depth=3)
    theirs = plain.state_dict()
    ours = {k: v.shape for k, v in network.state_dict().items() if k.startswith("blocks.")}
    assert ours == {k: v.shape for k, v in theirs.items() if k.startswith("blocks.")}
    rates = [getattr(block.drop_path1, "drop_prob", 0.0) for block in network.blocks]
    assert rates == pytest.approx([0.0, 0.15, 0.3])


@pytest.mark.setting("cam.vit.class_attention_layers")
def test_the_cam_has_the_class_attention_of_the_last_layer(task: Any) -> None:
    network = task.classifier.network.eval()
    x = torch.randn(1, 3, 32, 48)
    maps: list[Tensor] = []
    hooks = []
    for block in network.blocks:
        block.attn.fused_attn = False
        drop = block.attn.attn_drop
        hooks.append(drop.register_forward_pre_hook(lambda _, inputs: maps.append(inputs[0])))
    with torch.no_grad():
        patch_map = network(x).patch_map
        for hook in hooks:
            hook.remove()
        attention = maps[-1].mean(dim=1)[:, :2, 2:].reshape(1, 2, 2, 3)
        expected = attention * F.relu(patch_map)
        torch.testing.assert_close(task.classifier(x)[1], expected, rtol=1e-4, atol=1e-7)


@pytest.mark.setting("cam.vit.learning_rate_at_512", "cam.vit.final_learning_rate")
@pytest.mark.setting("cam.vit.warmup_learning_rate", "cam.vit.warmup_epochs")
@pytest.mark.setting("cam.vit.weight_decay")
def test_rates_follow_the_warm_up_and_the_cosine(task: Any) -> None:
    optimizer = task.optimizers["classifier"]
    peak = 8e-4 * 32 / 512
    assert {group["lr"] for group in optimizer.param_groups} == {peak}
    assert {group["weight_decay"] for group in optimizer.param_groups} == {0.2, 0.0}
    for step in range(101):
        if step < 20:  # two epochs of ten steps
            rate = 3e-6 + (peak - 3e-6) * step / 20
        else:
            rate = 2e-6 + (peak - 2e-6) * (1 + math.cos(math.pi * step / 100)) / 2
        assert peak * task.schedules["classifier"](step, 100) == pytest.approx(rate)
