"""OpenAI's own CLIP files (`ViT-B-16.pt` and its like) by `transformers`' names and settings."""

from __future__ import annotations

import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from wsss.errors import UserError
from wsss.models.pickles import check_torchscript
from wsss.models.weights import read_state_dict

# Settings of the model that the published files carry along as tensors.
_NO_WEIGHTS = ("input_resolution", "context_length", "vocab_size")
_RENAMED = (
    (r"^visual\.class_embedding$", "vision_model.embeddings.class_embedding"),
    (r"^visual\.positional_embedding$", "vision_model.embeddings.position_embedding.weight"),
    (r"^visual\.conv1\.", "vision_model.embeddings.patch_embedding."),
    (r"^visual\.ln_pre\.", "vision_model.pre_layrnorm."),
    (r"^visual\.ln_post\.", "vision_model.post_layernorm."),
    (r"^visual\.proj$", "visual_projection.weight"),
    (r"^token_embedding\.", "text_model.embeddings.token_embedding."),
    (r"^positional_embedding$", "text_model.embeddings.position_embedding.weight"),
    (r"^ln_final\.", "text_model.final_layer_norm."),
    (r"^text_projection$", "text_projection.weight"),
    (r"^visual\.transformer\.resblocks\.", "vision_model.encoder.layers."),
    (r"^transformer\.resblocks\.", "text_model.encoder.layers."),
    (r"\.ln_([12])\.", r".layer_norm\1."),
    (r"\.mlp\.c_fc\.", ".mlp.fc1."),
    (r"\.mlp\.c_proj\.", ".mlp.fc2."),
    (r"\.attn\.out_proj\.", ".self_attn.out_proj."),
)
# Stored input by output, where a linear layer's weight is output by input.
_TRANSPOSED = ("visual.proj", "text_projection")


def read_openai_clip(path: Path) -> dict[str, Tensor]:
    """Read the tensors of an OpenAI file, by the names in it, in float32.

    Args:
        path: The TorchScript archive as published, or a state dict with the same names.

    Raises:
        UserError: It cannot be read, or is no CLIP with a vision transformer.
    """
    state = _read_archive(path) if _is_torchscript(path) else read_state_dict(path)
    state = {name: value for name, value in state.items() if name not in _NO_WEIGHTS}
    if "visual.proj" not in state or "text_projection" not in state:
        raise UserError(
            "this file is no CLIP of OpenAI's with a vision transformer",
            where=path,
            expected="a file such as ViT-B-16.pt, with tensors 'visual.proj', 'text_projection', "
            "...; the ResNets (RN50, ...) have no attention to refine with",
        )
    return {name: value.float() for name, value in state.items()}


def _is_torchscript(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def _read_archive(path: Path) -> dict[str, Tensor]:
    check_torchscript(path, what="this TorchScript archive", fix="fetch it again")
    with warnings.catch_warnings():
        # Deprecated for programs. For reading published files there is nothing else.
        warnings.simplefilter("ignore")
        try:
            module: Any = torch.jit.load(str(path), map_location="cpu")  # type: ignore[no-untyped-call]
            return dict(module.state_dict())
        except Exception as error:
            # Whatever the reader meets in damaged bytes.
            reason = (str(error).strip() or type(error).__name__).splitlines()[0][:300]
            raise UserError(
                f"this TorchScript archive cannot be read: {reason}",
                where=path,
                fix="fetch it again",
            ) from None


def clip_settings(state: Mapping[str, Tensor], *, where: object | None = None) -> dict[str, Any]:
    """Return the keyword arguments of `transformers`' CLIPConfig that fit OpenAI's tensors.

    Raises:
        UserError: A tensor that says how large a part is, is missing or of another form.
    """
    try:
        return _settings(state)
    except (KeyError, ValueError, TypeError, IndexError) as error:
        raise UserError(
            f"this file is no CLIP of OpenAI's: a tensor is missing or of another form ({error})",
            where=where,
            expected="a file such as ViT-B-16.pt",
        ) from None


def _settings(state: Mapping[str, Tensor]) -> dict[str, Any]:
    width, _, patch, _ = state["visual.conv1.weight"].shape
    side = round((len(state["visual.positional_embedding"]) - 1) ** 0.5)
    length, text_width = state["positional_embedding"].shape
    projection = state["text_projection"].shape[1]

    def blocks(prefix: str) -> int:
        pattern = re.compile(rf"^{re.escape(prefix)}(\d+)\.")
        return len({found[1] for name in state if (found := pattern.match(name))})

    common = {"hidden_act": "quick_gelu", "layer_norm_eps": 1e-5, "projection_dim": projection}
    return {
        "projection_dim": projection,
        "vision_config": {
            **common,
            "hidden_size": width,
            "intermediate_size": 4 * width,
            "num_attention_heads": width // 64,
            "num_hidden_layers": blocks("visual.transformer.resblocks."),
            "patch_size": patch,
            "image_size": patch * side,
        },
        "text_config": {
            **common,
            "hidden_size": text_width,
            "intermediate_size": 4 * text_width,
            "num_attention_heads": text_width // 64,
            "num_hidden_layers": blocks("transformer.resblocks."),
            "max_position_embeddings": length,
            "vocab_size": len(state["token_embedding.weight"]),
            "bos_token_id": 49406,
            "eos_token_id": 49407,
        },
    }


def by_transformers_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return OpenAI's tensors by the names of `transformers`' CLIPModel.

    A name that is not OpenAI's stays as it is; loading says what it does not know.
    """
    renamed: dict[str, Tensor] = {}
    for name, value in state.items():
        new = name
        for pattern, replacement in _RENAMED:
            new = re.sub(pattern, replacement, new)
        if ".attn.in_proj_" in new:
            parts = value.chunk(3)
            for letter, part in zip("qkv", parts, strict=True):
                target = new.replace(".attn.in_proj_", f".self_attn.{letter}_proj.")
                renamed[target] = part
            continue
        renamed[new] = value.T if name in _TRANSPOSED else value
    return renamed
