import re
from pathlib import Path

import pytest
import safetensors.torch
import timm
import torch
from torch import Tensor

from wsss.errors import UserError
from wsss.models.published.vit_weights import fill_from_state, load_vit_weights
from wsss.models.vit import MCTformerV2

NAME, DEPTH, CLASSES = "deit_tiny_patch16_224", 3, 4


def classifier_state(name: str = NAME) -> dict[str, Tensor]:
    """A published file's tensors: those of timm's own model, with random values."""
    generator = torch.Generator().manual_seed(3)
    state: dict[str, Tensor] = timm.create_model(name, depth=DEPTH).state_dict()
    return {key: torch.randn(value.shape, generator=generator) for key, value in state.items()}


def network(name: str = NAME) -> MCTformerV2:
    return MCTformerV2(name, CLASSES, depth=DEPTH).eval()


def write(state: dict[str, Tensor], path: Path) -> Path:
    if path.suffix == ".safetensors":
        safetensors.torch.save_file(state, str(path))
    else:
        torch.save({"model": state}, path)
    return path


@pytest.mark.parametrize("file", ["deit.pth", "model.safetensors"])
def test_published_classifier_is_loaded_and_its_class_token_repeated(
    file: str, tmp_path: Path
) -> None:
    state = classifier_state()
    model = network()
    head = model.head.weight.clone()
    report = load_vit_weights(model, write(state, tmp_path / file))
    for c in range(CLASSES):
        assert torch.equal(model.cls_token[0, c], state["cls_token"][0, 0])
        assert torch.equal(model.pos_embed[0, c], state["pos_embed"][0, 0])
    assert torch.equal(model.pos_embed[0, CLASSES:], state["pos_embed"][0, 1:])
    for name, parameter in model.named_parameters():
        if name.startswith(("blocks.", "patch_embed.")):
            assert torch.equal(parameter, state[name]), name
    assert torch.equal(model.head.weight, head)
    assert set(report.left_out) == {"norm.weight", "norm.bias", "head.weight", "head.bias"}
    assert set(report.used) | set(report.left_out) == set(state)


@pytest.mark.parametrize("name", [NAME, "deit3_small_patch16_224"])
def test_with_one_class_the_tokens_are_those_of_the_classifier(name: str) -> None:
    reference = timm.create_model(name, depth=DEPTH).eval()
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in reference.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.05)
    model = MCTformerV2(name, 1, depth=DEPTH).eval()
    fill_from_state(model, reference.state_dict())
    image = torch.randn(2, 3, 224, 224, generator=generator)
    reference.norm = torch.nn.Identity()  # not applied by MCTformer
    with torch.no_grad():
        tokens = reference.forward_features(image)
        output = model(image)
        patch_map = model.head(tokens[:, 1:].transpose(1, 2).reshape(2, -1, 14, 14))
    torch.testing.assert_close(output.class_logit, tokens[:, :1].mean(dim=2))
    torch.testing.assert_close(output.patch_map, patch_map)


def test_deit3_files_name_their_layer_scale_otherwise() -> None:
    name = "deit3_small_patch16_224"
    state = classifier_state(name)
    published = {
        re.sub(r"\.ls(\d)\.gamma$", r".gamma_\1", key): value for key, value in state.items()
    }
    assert "blocks.0.gamma_1" in published
    model = network(name)
    fill_from_state(model, published)
    assert torch.equal(model.blocks[1].ls2.gamma, state["blocks.1.ls2.gamma"])


def test_mctformer_checkpoint_is_loaded_whole(tmp_path: Path) -> None:
    source = network()
    state = dict(source.state_dict())
    state["norm.weight"], state["norm.bias"] = torch.ones(192), torch.zeros(192)
    model = network()
    report = load_vit_weights(model, write(state, tmp_path / "checkpoint.pth"))
    assert report.left_out == ("norm.weight", "norm.bias")
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, source.state_dict()[name]), name
    assert not torch.equal(model.head.weight, network().head.weight)


def test_checkpoint_of_other_classes_is_refused() -> None:
    state = MCTformerV2(NAME, CLASSES + 1, depth=DEPTH).state_dict()
    with pytest.raises(UserError, match="5 class tokens"):
        fill_from_state(network(), state)


def test_distilled_file_is_refused() -> None:
    with pytest.raises(UserError, match="distilled"):
        fill_from_state(network(), classifier_state("deit_tiny_distilled_patch16_224"))


@pytest.mark.parametrize("other", ["deit_small_patch16_224", "vit_tiny_patch16_384"])
def test_file_of_another_width_or_grid_is_refused(other: str) -> None:
    with pytest.raises(UserError, match=NAME):
        fill_from_state(network(), classifier_state(other))


def test_file_of_another_kind_of_network_is_refused() -> None:
    with pytest.raises(UserError, match="no cls_token and no pos_embed"):
        fill_from_state(network(), {"conv1.weight": torch.zeros(1)})


@pytest.mark.parametrize(
    ("drop", "add"), [("blocks.1.attn.qkv.bias", None), (None, "blocks.7.norm1.weight")]
)
def test_missing_and_unknown_tensors_are_refused_and_nothing_is_changed(
    drop: str | None, add: str | None
) -> None:
    state = classifier_state()
    if drop:
        del state[drop]
    if add:
        state[add] = torch.zeros(192)
    model = network()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(UserError, match=re.escape(str(drop or add))):
        fill_from_state(model, state)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name])
