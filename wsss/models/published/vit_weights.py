"""Weight files for MCTformerV2: DeiT / ViT files as published, and MCTformer checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from wsss.errors import UserError
from wsss.models.vit import MCTformerV2
from wsss.models.weights import LoadReport, load_strict, read_state_dict

_CLASS_TOKEN, _POSITIONS = "cls_token", "pos_embed"
_HEAD = ("head.weight", "head.bias")
# Of a plain classifier, before or after its pooling; MCTformerV2 applies neither.
_FINAL_NORM = ("norm.weight", "norm.bias", "fc_norm.weight", "fc_norm.bias")
# DeiT III's files name the layer scale otherwise than timm does.
_PARTS = {".gamma_1": ".ls1.gamma", ".gamma_2": ".ls2.gamma"}


def load_vit_weights(model: MCTformerV2, path: str | Path) -> LoadReport:
    """Fill `model` from a weight file, strictly; which kind it is, the tensors say.

    A DeiT or ViT classifier gives everything but the head, which keeps its fresh values: its class
    token and that token's position embedding are repeated once per class (MCTformer). A checkpoint
    of MCTformerV2 gives everything.

    Args:
        model: Network to fill, in place.
        path: `.safetensors`, or a PyTorch pickle, bare or wrapped as {"model": ...}.

    Returns:
        The names of the file's tensors that were used, and those that were left out.

    Raises:
        UserError: The file is unreadable, of another network, or for another number of classes.
    """
    return fill_from_state(model, read_state_dict(path), where=path)


class NamedVit(Protocol):
    """What says which transformer a weight file is for."""

    @property
    def name(self) -> str:
        """A plain ViT or DeiT of timm."""
        ...

    @property
    def depth(self) -> int | None:
        """Layers, where not the named model's own."""
        ...


def check_vit_weights(config: NamedVit, path: Path) -> None:
    """Check that a weight file is of a network, whatever the number of classes.

    Raises:
        UserError: It is of another network.
    """
    state = read_state_dict(path)
    is_checkpoint = state.get("head.weight", torch.empty(0)).dim() == 4
    classes = state[_CLASS_TOKEN].shape[1] if is_checkpoint and _CLASS_TOKEN in state else 1
    network = MCTformerV2(config.name, classes, class_attention_layers=1, depth=config.depth)
    fill_from_state(network, state, where=path)


def fill_from_state(
    model: MCTformerV2, state: Mapping[str, Tensor], *, where: object | None = None
) -> LoadReport:
    """Fill `model` from the tensors of a file; see `load_vit_weights`."""
    tensors = {_renamed(name): tensor for name, tensor in state.items()}
    missing = [name for name in (_CLASS_TOKEN, _POSITIONS) if name not in tensors]
    if missing:
        raise UserError(
            f"this weight file has no {' and no '.join(missing)}",
            where=where,
            expected=f"a vision transformer ({model.name}), or a checkpoint of MCTformerV2",
        )
    if "dist_token" in tensors:
        raise UserError(
            "this is the weight file of a distilled DeiT",
            where=where,
            expected=f"one class token ({model.name})",
            fix="give the file of the model without 'distilled' in its name",
        )
    left_out = [name for name in _FINAL_NORM if name in tensors]
    is_checkpoint = tensors.get("head.weight", torch.empty(0)).dim() == 4
    if is_checkpoint:
        _check_classes(model, tensors[_CLASS_TOKEN], where)
        return load_strict(model, tensors, leave_out=left_out, where=where)
    left_out += [name for name in _HEAD if name in tensors]
    kept = {name: tensor for name, tensor in tensors.items() if name not in left_out}
    kept[_POSITIONS] = _positions_per_class(model, kept[_CLASS_TOKEN], kept[_POSITIONS], where)
    kept[_CLASS_TOKEN] = kept[_CLASS_TOKEN].repeat(1, model.classes, 1)
    own = model.state_dict()
    report = load_strict(model, kept | {name: own[name] for name in _HEAD}, where=where)
    used = tuple(name for name in report.used if name not in _HEAD)
    return LoadReport(used=used, left_out=tuple(left_out))


def _renamed(name: str) -> str:
    for ending, replacement in _PARTS.items():
        if name.endswith(ending):
            return name.removesuffix(ending) + replacement
    return name


def _check_classes(model: MCTformerV2, class_tokens: Tensor, where: object | None) -> None:
    found = class_tokens.shape[1] if class_tokens.dim() == 3 else 0
    if found != model.classes:
        raise UserError(
            f"this checkpoint has {found} class tokens",
            where=where,
            expected=f"{model.classes}, one for each class of this data set",
            fix="give a checkpoint of the same classes, or the DeiT file it was started from",
        )


def _positions_per_class(
    model: MCTformerV2, class_token: Tensor, positions: Tensor, where: object | None
) -> Tensor:
    patches = model.grid[0] * model.grid[1]
    if class_token.shape != (1, 1, model.embed_dim):
        raise UserError(
            f"the class token has shape {tuple(class_token.shape)}",
            where=where,
            expected=f"(1, 1, {model.embed_dim}), as in {model.name}",
        )
    if positions.shape == (1, patches, model.embed_dim):
        # DeiT III adds no position to its class token, which a position of zero says exactly.
        of_class = positions.new_zeros(1, 1, model.embed_dim)
    elif positions.shape == (1, 1 + patches, model.embed_dim):
        of_class, positions = positions[:, :1], positions[:, 1:]
    else:
        raise UserError(
            f"the position embedding has shape {tuple(positions.shape)}",
            where=where,
            expected=f"(1, {1 + patches}, {model.embed_dim}), as in {model.name}",
            fix="name the model of this file, its image size included",
        )
    return torch.cat([of_class.repeat(1, model.classes, 1), positions], dim=1)
