"""MCTformerV2: a vision transformer with one class token per class, and the CAMs it yields.

Source: MCTformer (CVPR 2022), second variant; ACR (CVPR 2023), supplementary, section B.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wsss.errors import UserError
from wsss.models.backbones import Normalisation
from wsss.models.hub import HubWeights

AttentionRequest = Literal["none", "class", "all"]


class MctformerOutput(NamedTuple):
    """What one forward pass gives; C classes, h x w patches, N = h * w.

    Attributes:
        class_logit: (B, C), each class token's mean over its channels.
        patch_logit: (B, C), global average pooling of `patch_map`.
        patch_map: (B, C, h, w), the 3x3 convolution over the patch tokens, of either sign.
        class_attention: (B, C, h, w) float32 >= 0, class-to-patch attention, mean over heads,
            summed over the last layers; None unless "class" or "all" was asked for.
        patch_attention: (B, N, N) float32 >= 0, patch-to-patch attention (query, key), mean over
            heads, summed over all layers; None unless "all" was asked for.
    """

    class_logit: Tensor
    patch_logit: Tensor
    patch_map: Tensor
    class_attention: Tensor | None
    patch_attention: Tensor | None


class MCTformerV2(nn.Module):
    """A timm vision transformer with one class token per class and a 3x3 convolution as head.

    Parameter names are those of timm and of published MCTformer checkpoints. The transformer's
    final norm is not applied (MCTformer), so it is not kept either.

    Args:
        name: A timm model of the plain ViT / DeiT family, such as `deit_small_patch16_224`.
        classes: Number of classes C.
        drop_path: Largest stochastic-depth rate, reached at the last layer.
        class_attention_layers: How many of the last layers give the class attention.
        depth: Number of layers, where it is not to be the named model's own.

    Attributes:
        origin: The weights it was filled with, where they came by name.

    Raises:
        UserError: `name` is not such a model, or a number is impossible.
    """

    origin: HubWeights | None = None

    def __init__(
        self,
        name: str,
        classes: int,
        *,
        drop_path: float = 0.1,
        class_attention_layers: int = 3,
        depth: int | None = None,
    ) -> None:
        super().__init__()
        if classes < 1:
            raise UserError(f"{classes} classes asked for", expected="at least 1")
        vit = _plain_vision_transformer(name, drop_path, depth)
        if not 1 <= class_attention_layers <= len(vit.blocks):
            raise UserError(
                f"class attention of the last {class_attention_layers} layers asked for",
                where=name,
                expected=f"1 to {len(vit.blocks)}, the layers of this transformer",
            )
        self.name = name
        self.classes = classes
        self.class_attention_layers = class_attention_layers
        self.patch_px = int(vit.patch_embed.patch_size[0])
        self.grid: tuple[int, int] = tuple(vit.patch_embed.grid_size)
        self.embed_dim = int(vit.embed_dim)
        self.normalisation = Normalisation(
            tuple(vit.default_cfg["mean"]), tuple(vit.default_cfg["std"])
        )
        patches = self.grid[0] * self.grid[1]
        self.cls_token = nn.Parameter(torch.empty(1, classes, self.embed_dim))
        self.pos_embed = nn.Parameter(torch.empty(1, classes + patches, self.embed_dim))
        nn.init.trunc_normal_(self.cls_token, std=0.02)
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        self.patch_embed = vit.patch_embed
        self.blocks: nn.Sequential = vit.blocks
        self.head = nn.Conv2d(self.embed_dim, classes, kernel_size=3, padding=1)

    def no_weight_decay(self) -> set[str]:
        """Return the names that weight decay leaves alone besides one-dimensional parameters."""
        return {"cls_token", "pos_embed"}

    def forward(self, image: Tensor, *, attention: AttentionRequest = "none") -> MctformerOutput:
        """Classify `image`, and hand out attention where it is asked for.

        Args:
            image: (B, 3, H, W), normalised with `normalisation`; H and W multiples of
                `patch_px`.
            attention: "none" runs timm's own blocks; "class" adds the class tokens' rows of the
                last layers (cheap, what training with the reconstructor needs); "all" adds the
                patch-to-patch matrix, with one head's T x T map alive at a time under `no_grad`.

        Raises:
            UserError: A side is not a multiple of the patch, or `attention` is unknown.
        """
        if attention not in get_args(AttentionRequest):
            raise UserError(
                f"attention {attention!r} asked for",
                expected=", ".join(get_args(AttentionRequest)),
            )
        height, width = self._patch_grid(image)
        tokens = self._tokens(image)
        first = len(self.blocks) - self.class_attention_layers
        class_attention: Tensor | None = None
        patch_attention: Tensor | None = None
        for layer, block in enumerate(self.blocks):
            if attention == "none" or (attention == "class" and layer < first):
                tokens = block(tokens)
                continue
            if attention == "class":
                tokens, rows = _block_with_class_rows(block, tokens, self.classes)
            else:
                tokens, rows = _block_with_attention(block, tokens)
                patch_attention = _add(patch_attention, rows[:, self.classes :, self.classes :])
            if layer >= first:
                class_attention = _add(class_attention, rows[:, : self.classes, self.classes :])
        class_tokens, patch_tokens = tokens[:, : self.classes], tokens[:, self.classes :]
        patch_map = self.head(patch_tokens.transpose(1, 2).reshape(len(image), -1, height, width))
        if class_attention is not None:
            class_attention = class_attention.reshape(len(image), -1, height, width)
        return MctformerOutput(
            class_logit=class_tokens.mean(dim=2),
            patch_logit=patch_map.mean(dim=(2, 3)),
            patch_map=patch_map,
            class_attention=class_attention,
            patch_attention=patch_attention,
        )

    def _patch_grid(self, image: Tensor) -> tuple[int, int]:
        height_px, width_px = image.shape[-2:]
        if height_px % self.patch_px or width_px % self.patch_px or not height_px * width_px:
            raise UserError(
                f"an image of {height_px} x {width_px} px (height x width)",
                where=self.name,
                expected=f"sides that are positive multiples of {self.patch_px} px",
                fix="resize or pad the image, or choose another crop",
            )
        return height_px // self.patch_px, width_px // self.patch_px

    def _tokens(self, image: Tensor) -> Tensor:
        patches = self.patch_embed(image)  # (B, h, w, D)
        height, width = patches.shape[1:3]
        grid = self.pos_embed[:, self.classes :].reshape(1, *self.grid, self.embed_dim)
        patches = patches + resize_position_embedding(grid, (height, width))
        class_tokens = self.cls_token + self.pos_embed[:, : self.classes]
        return torch.cat([class_tokens.expand(len(image), -1, -1), patches.flatten(1, 2)], dim=1)


def _plain_vision_transformer(name: str, drop_path: float, depth: int | None) -> Any:
    # Here, as maps are refined without a transformer's own code, too.
    import timm
    from timm.models import vision_transformer

    # dynamic_img_size makes patch_embed accept any multiple of the patch and keep the grid.
    options: dict[str, Any] = {
        "num_classes": 0,
        "dynamic_img_size": True,
        "drop_path_rate": drop_path,
    }
    if depth is not None:
        options["depth"] = depth
    expected = "a plain vision transformer of timm with a class token and learned positions"
    fix = "choose one such as deit_small_patch16_224, deit_tiny_patch16_224, vit_tiny_patch16_224"
    if not timm.is_model(name):
        raise UserError(f"timm has no model {name!r}", expected=expected, fix=fix)
    try:
        vit: Any = timm.create_model(name, pretrained=False, **options)
    except TypeError:
        raise UserError(f"{name!r} is no vision transformer", expected=expected, fix=fix) from None
    # What differs from this list would be computed wrongly, not merely unusually.
    plain = (
        type(vit) is vision_transformer.VisionTransformer
        and vit.cls_token is not None
        and vit.pos_embed is not None
        and not vit.num_reg_tokens
        and isinstance(vit.norm_pre, nn.Identity)
        and isinstance(vit.patch_drop, nn.Identity)
        and vit.patch_embed.patch_size[0] == vit.patch_embed.patch_size[1]
        and all(
            type(block) is vision_transformer.Block and _is_plain(block.attn)
            for block in vit.blocks
        )
    )
    if not plain:
        raise UserError(f"{name!r} is another kind of transformer", expected=expected, fix=fix)
    return vit


def _is_plain(attention: nn.Module) -> bool:
    # `norm` and `gate` stand between the heads and the projection in newer variants only.
    from timm.models import vision_transformer

    plain = vision_transformer.Attention  # type: ignore[attr-defined]  # moved within timm
    return (
        isinstance(attention, plain)
        and isinstance(getattr(attention, "norm", nn.Identity()), nn.Identity)
        and getattr(attention, "gate", None) is None
    )


# timm declares the parts of a block as `Tensor | Module`, hence Any below.


def _queries_keys_values(attention: Any, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    # Each (B, heads, T, channels of a head); queries unscaled.
    batch, tokens, _ = x.shape
    qkv = attention.qkv(x).reshape(batch, tokens, 3, attention.num_heads, attention.head_dim)
    query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)
    return attention.q_norm(query), attention.k_norm(key), value


def _finish_block(block: Any, x: Tensor, heads: Tensor) -> Tensor:
    # The rest of timm's block after the heads (B, heads, T, channels) were mixed.
    mixed = block.attn.proj_drop(block.attn.proj(heads.transpose(1, 2).flatten(2)))
    x = x + block.drop_path1(block.ls1(mixed))
    out: Tensor = x + block.drop_path2(block.ls2(block.mlp(block.norm2(x))))
    return out


def _block_with_class_rows(block: Any, x: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """Run `block` with fused attention; also give the class queries' rows, (B, classes, T).

    A softmax row depends on its own query only, so the few class rows are exact by themselves.
    """
    query, key, value = _queries_keys_values(block.attn, block.norm1(x))
    rate = block.attn.attn_drop.p if block.training else 0.0
    heads = F.scaled_dot_product_attention(query, key, value, dropout_p=rate)
    scores = (query[:, :, :classes] * block.attn.scale) @ key.transpose(-2, -1)
    rows = scores.to(_at_least_float32(scores)).softmax(dim=-1).mean(dim=1)
    return _finish_block(block, x, heads), rows


def _block_with_attention(block: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    """Run `block` and give its attention, mean over heads, (B, T, T)."""
    query, key, value = _queries_keys_values(block.attn, block.norm1(x))
    # Head by head: at full image size the maps of all heads together would be gigabytes.
    mean = torch.zeros(
        (len(x), x.shape[1], x.shape[1]), dtype=_at_least_float32(x), device=x.device
    )
    heads = []
    for q, k, v in zip(query.unbind(1), key.unbind(1), value.unbind(1), strict=True):
        scores = (q * block.attn.scale) @ k.transpose(-2, -1)
        probability = scores.softmax(dim=-1)
        del scores
        mean.add_(probability, alpha=1 / block.attn.num_heads)
        heads.append(block.attn.attn_drop(probability).to(v.dtype) @ v)
    return _finish_block(block, x, torch.stack(heads, dim=1)), mean


def _at_least_float32(x: Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)


def _add(total: Tensor | None, part: Tensor) -> Tensor:
    # The first part is copied, since it is a view that would keep its whole T x T map alive.
    return part.clone() if total is None else total.add_(part)


# (n + 0.1): the offset of DINO's and MCTformer's code, part of the computation by now.
def _scale(old: int, new: int) -> float:
    return (new + 0.1) / old


@lru_cache(maxsize=256)
def _resize_matrix(old: int, new: int) -> Tensor:
    # (new, old) in float64: resizing is linear and separable along the axes, so resizing the unit
    # vectors gives its matrix.
    units = torch.eye(old, dtype=torch.float64).reshape(1, old, old, 1)
    resized = F.interpolate(units, scale_factor=(_scale(old, new), 1.0), mode="bicubic")
    return resized[0, :, :, 0].T.contiguous()


def resize_position_embedding(
    grid: Tensor, size: tuple[int, int], *, as_product: bool | None = None
) -> Tensor:
    """Resize position embeddings bicubically, with scale factor (n + 0.1) / old side.

    Args:
        grid: (1, h, w, D), any float type.
        size: New (h, w); a grid that has this size already is returned as it is.
        as_product: Compute it as two matrix products, equal but for rounding. By default where
            deterministic algorithms are asked for and `interpolate` has none: on CUDA, backwards.

    Returns:
        (1, *size, D) of the same type.
    """
    old = (grid.shape[1], grid.shape[2])
    if old == tuple(size):
        return grid
    if as_product is None:
        deterministic = torch.are_deterministic_algorithms_enabled()
        needs_gradient = grid.requires_grad and torch.is_grad_enabled()
        as_product = deterministic and needs_gradient and grid.is_cuda
    if as_product:
        rows, columns = (_resize_matrix(old[i], size[i]).to(grid) for i in (0, 1))
        return torch.einsum("yh,xw,bhwd->byxd", rows, columns, grid)
    scale = (_scale(old[0], size[0]), _scale(old[1], size[1]))
    resized = F.interpolate(grid.permute(0, 3, 1, 2), scale_factor=scale, mode="bicubic")
    return resized.permute(0, 2, 3, 1)


def fused_cam(output: MctformerOutput, *, detach_patch_cam: bool = False) -> Tensor:
    """Return class attention times the patch CAM, (B, C, h, w) >= 0 (MCTformerV2).

    Args:
        output: From a forward pass with attention "class" or "all".
        detach_patch_cam: True as MCTformerV2 does for its maps; False where the gradient has to
            flow through the patch CAM, as in training against the reconstructor (ACR).

    Raises:
        UserError: The forward pass was made without attention.
    """
    if output.class_attention is None:
        raise UserError(
            "the fused CAM needs class attention",
            fix='call the model with attention="class" or "all"',
        )
    patch_map = output.patch_map.detach() if detach_patch_cam else output.patch_map
    return output.class_attention * patch_map.relu()


def refine_with_patch_attention(cam: Tensor, attention: Tensor) -> Tensor:
    """Spread each CAM along patch-to-patch attention: `attention @ cam`, not normalised.

    Args:
        cam: (..., C, h, w), of this transformer or of any other network, a value a patch.
        attention: (..., N, N), N = h * w; rows are queries, columns keys.

    Returns:
        (..., C, h, w), the type of `cam`.

    Raises:
        UserError: The matrix is not square or does not fit the CAM.
    """
    height, width = cam.shape[-2:]
    if attention.shape[-2:] != (height * width, height * width):
        raise UserError(
            f"patch attention of {attention.shape[-2]} x {attention.shape[-1]}",
            expected=f"{height * width} x {height * width}, for a CAM of {height} x {width} cells",
            fix="take CAM and attention from the same image size, or resize the CAM",
        )
    refined = cam.flatten(-2) @ attention.to(cam.dtype).transpose(-2, -1)
    return refined.reshape(cam.shape)
