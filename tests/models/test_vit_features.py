"""Plain transformers as backbones: timm's own features, any size, frozen or not."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

from wsss.errors import UserError
from wsss.models.backbones import is_vit
from wsss.models.vit_features import VitFeatures

NAME = "vit_tiny_patch16_224"


def picture(height: int, width: int) -> torch.Tensor:
    return torch.randn(1, 3, height, width, generator=torch.Generator().manual_seed(0))


def test_features_are_timms_own_after_the_named_blocks() -> None:
    network = VitFeatures(NAME, layers=(3, -1)).eval()
    body, x = network.body, picture(224, 224)
    with torch.no_grad():
        tokens = body.norm_pre(body._pos_embed(body.patch_embed(x)))
        wanted = []
        for number, block in enumerate(body.blocks):
            tokens = block(tokens)
            if number in (3, 11):
                wanted.append(body.norm(tokens)[:, 1:].transpose(1, 2).reshape(1, 192, 14, 14))
        found = network(x)
    assert network.layers == (3, 11) and network.channels == (192, 192)
    for ours, theirs in zip(found, wanted, strict=True):
        assert torch.allclose(ours, theirs, atol=1e-4)


@pytest.mark.parametrize("name", ["vit_small_patch14_dinov2.lvd142m", "vit_small_patch16_dinov3"])
def test_sides_that_are_no_multiple_of_the_patch(name: str) -> None:
    network = VitFeatures(name, frozen=True)
    patch = network.patch_px
    (feature,) = network(picture(3 * patch + 1, 2 * patch))
    padded = torch.zeros(1, 3, 4 * patch, 2 * patch)
    padded[:, :, : 3 * patch + 1] = picture(3 * patch + 1, 2 * patch)
    assert feature.shape == (1, 384, 4, 2)
    assert torch.allclose(feature, network(padded)[0], atol=1e-4)


def test_frozen_is_without_gradients_and_in_eval_mode() -> None:
    frozen = VitFeatures(NAME, frozen=True).train()
    assert not any(module.training for module in frozen.modules())
    assert not any(parameter.requires_grad for parameter in frozen.parameters())
    assert not frozen(picture(32, 32).requires_grad_())[0].requires_grad
    trained = VitFeatures(NAME).train()
    assert trained.body.training and trained(picture(32, 32))[0].requires_grad


def test_a_weight_file(tmp_path: Path) -> None:
    torch.manual_seed(1)
    source = timm.create_model(NAME, pretrained=False)
    file = tmp_path / "model.safetensors"
    save_file(source.state_dict(), file)
    network = VitFeatures(NAME, weights_file=file)
    own = network.body.state_dict()
    # Of the whole classifier, all but the classifier itself.
    assert all(torch.equal(source.state_dict()[key], value) for key, value in own.items())
    with pytest.raises(UserError, match="do not fit vit_small_patch16_224"):
        VitFeatures("vit_small_patch16_224", weights_file=file)


def test_blocks_that_there_are_not() -> None:
    for layers in ((12,), (-13,), (5, 3), (3, 3)):
        with pytest.raises(UserError, match=r"backbone\.layers"):
            VitFeatures(NAME, layers=layers)


def test_what_is_a_plain_transformer() -> None:
    assert is_vit(NAME) and is_vit("vit_small_patch16_dinov3")
    assert not is_vit("resnet18") and not is_vit("no_such_model")
    assert not is_vit("swin_tiny_patch4_window7_224")
