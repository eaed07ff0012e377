"""A frozen CLIP (OpenAI, ICML 2021) as a reader of images and of class names.

The weights and the layers are those of `transformers`' CLIPModel. How they are run is here, since
segmentation wants what its own forward does not give: the attention between patches of a picture
of any size without keeping a matrix a head, and the last block apart from the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from wsss.errors import UserError
from wsss.models.backbones import Normalisation

if TYPE_CHECKING:
    from transformers import CLIPModel, CLIPTokenizer

CLIP_NORMALISATION = Normalisation(
    mean=(0.48145466, 0.4578275, 0.40821073), std=(0.26862954, 0.26130258, 0.27577711)
)
# Scores of so many pairs of tokens (64 MB) are kept at a time, all heads together.
_SCORES = 2**24
# Gradients of so many values (64 MB) at the last block are computed together.
_GRADIENTS = 2**24


class ImageTokens(NamedTuple):
    """A picture on its way into the last block.

    Attributes:
        tokens: (1 + N, C) float32, the class token first, then the N = h * w patches row by row.
        attention: (N, N) float32, patch to patch (rows ask), mean over heads and the last layers,
            the class token left out and the rows not normalised again; None if not asked for.
        grid: (h, w) in patches.
    """

    tokens: Tensor
    attention: Tensor | None
    grid: tuple[int, int]


class ClassGradients(NamedTuple):
    """What the last block says of some texts.

    Attributes:
        activation: (N, C) float32, the patches as they enter the last block's attention (its first
            layer norm's output).
        weights: (K, C) float32, mean over the patches of the gradient of each target's
            probability with respect to `activation`.
        logits: (T,) float32, scaled cosines between the picture and each text.
        probabilities: (T,) float32, their softmax.
    """

    activation: Tensor
    weights: Tensor
    logits: Tensor
    probabilities: Tensor


@dataclass(frozen=True)
class Clip:
    """CLIP's two encoders, in eval mode, and its tokenizer.

    Attributes:
        model: `transformers`' model, on `device`, float32, without gradients of its weights.
        tokenizer: Its byte-pair tokenizer.
        device: Where the model is.
    """

    model: CLIPModel
    tokenizer: CLIPTokenizer
    device: torch.device

    @property
    def patch_px(self) -> int:
        """Side of a patch in pixels."""
        return int(self.model.config.vision_config.patch_size)

    @property
    def layers(self) -> int:
        """Blocks of the image encoder."""
        return len(self.model.vision_model.encoder.layers)

    def tokenize(self, texts: Sequence[str]) -> Tensor:
        """Return (T, 77) int64 token numbers: start, words, end, then zeros.

        Raises:
            UserError: A text has more tokens than CLIP reads.
        """
        length = int(self.model.config.text_config.max_position_embeddings)
        numbers = torch.zeros(len(texts), length, dtype=torch.int64)
        for row, text in zip(numbers, texts, strict=True):
            ids = list(self.tokenizer(text).input_ids)
            if len(ids) > length:
                raise UserError(
                    f"this text has {len(ids)} tokens: {text!r}",
                    expected=f"at most {length}, start and end among them",
                    fix="use fewer words",
                )
            row[: len(ids)] = torch.tensor(ids)
        return numbers

    @torch.no_grad()
    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        """Return (T, D) float32 embeddings of length 1.

        The text's embedding is read at its end token, the largest number in it.
        """
        model, encoder = self.model, self.model.text_model
        numbers = self.tokenize(texts)
        ends = numbers.argmax(dim=-1)
        # Nothing after the end token is looked at, since every token only sees those before it.
        numbers = numbers[:, : int(ends.max()) + 1].to(self.device)
        tokens = encoder.embeddings(input_ids=numbers)
        for layer in encoder.encoder.layers:
            normed = layer.layer_norm1(tokens)
            heads = _heads(layer.self_attn, normed)
            mixed = F.scaled_dot_product_attention(*heads, is_causal=True)
            tokens = _rest_of_block(layer, tokens, mixed)
        rows = torch.arange(len(tokens), device=self.device)
        read = encoder.final_layer_norm(tokens[rows, ends.to(self.device)])
        return F.normalize(model.text_projection(read).float(), dim=-1)

    @torch.no_grad()
    def image_tokens(
        self, image: Tensor, *, attention_layers: int, half_positions: bool = False
    ) -> ImageTokens:
        """Run a picture through all blocks but the last.

        Under `torch.autocast` all but the residual stream is in its type.

        Args:
            image: (3, H, W) float32, normalised; both sides are multiples of the patch's.
            attention_layers: The attention of so many last blocks is averaged, the very last
                among them; 0: none is computed.
            half_positions: Round the resized position embeddings to float16, as CLIP-ES does.

        Returns:
            The tokens, and the attention.
        """
        vision = self.model.vision_model
        patches = vision.embeddings.patch_embedding(image[None])
        grid = (int(patches.shape[-2]), int(patches.shape[-1]))
        tokens = torch.cat(
            [vision.embeddings.class_embedding[None, None], patches.flatten(2).transpose(1, 2)], 1
        )
        tokens = vision.pre_layrnorm(tokens + self.positions(grid, half=half_positions)).float()
        attention = None
        if attention_layers:
            count = grid[0] * grid[1]
            attention = torch.zeros(count, count, device=self.device)
        layers = vision.encoder.layers
        first = len(layers) - attention_layers
        for number, layer in enumerate(layers):
            last = number == len(layers) - 1
            if last and attention is None:
                break
            query, key, value = _heads(layer.self_attn, layer.layer_norm1(tokens))
            if attention is None or number < first:
                mixed = F.scaled_dot_product_attention(query, key, value)
            else:
                mixed = _attend(query, key, None if last else value, attention)
            if not last:
                tokens = _rest_of_block(layer, tokens, mixed)
        if attention is not None:
            attention /= attention_layers
        return ImageTokens(tokens[0].float(), attention, grid)

    def positions(self, grid: tuple[int, int], *, half: bool = False) -> Tensor:
        """Return (1 + N, C) position embeddings, resized bilinearly to the grid.

        `transformers` resizes bicubically; CLIP-ES, bilinearly with half-pixel centres.
        """
        positions = self.model.vision_model.embeddings.position_embedding.weight.float()
        side = round((len(positions) - 1) ** 0.5)
        square = positions[1:].T.reshape(1, -1, side, side)
        resized = F.interpolate(square, size=grid, mode="bilinear", align_corners=False)
        both = torch.cat([positions[:1], resized[0].flatten(1).T])
        return both.half().float() if half else both

    def class_gradients(self, tokens: Tensor, texts: Tensor, targets: int) -> ClassGradients:
        """Run the last block, and its gradients for the first texts, all of them in one batch.

        The picture's embedding is the mean over its patches, projected. The probability whose
        gradient is taken is the softmax over all texts (softmax Grad-CAM, CLIP-ES, CVPR 2023).

        Args:
            tokens: (1 + N, C) float32, of `image_tokens`.
            texts: (T, D) text embeddings of length 1.
            targets: Of so many texts, from the first on, the gradients are computed.

        Returns:
            Activation, gradients' means, logits and probabilities; always in float32, since the
            gradient of a saturated probability underflows in less.
        """
        vision = self.model.vision_model
        layer = vision.encoder.layers[-1]
        with torch.enable_grad(), torch.autocast(self.device.type, enabled=False):
            normed = layer.layer_norm1(tokens)[None].detach().requires_grad_()
            mixed = F.scaled_dot_product_attention(*_heads(layer.self_attn, normed))
            out = _rest_of_block(layer, tokens[None], mixed)
            mean = vision.post_layernorm(out[0, 1:]).mean(dim=0)
            embedding = F.normalize(self.model.visual_projection(mean), dim=-1)
            logits = self.model.logit_scale.exp() * (texts @ embedding)
            probabilities = logits.softmax(dim=-1)
            together = max(1, _GRADIENTS // normed.numel())
            means = []
            for start in range(0, targets, together):
                chosen = probabilities[start : min(start + together, targets)]
                (gradient,) = torch.autograd.grad(
                    chosen,
                    normed,
                    torch.eye(len(chosen), device=self.device),
                    is_grads_batched=True,
                    retain_graph=True,
                )
                means.append(gradient[:, 0, 1:].mean(dim=1))
        return ClassGradients(
            activation=normed.detach()[0, 1:],
            weights=torch.cat(means),
            logits=logits.detach(),
            probabilities=probabilities.detach(),
        )


def _heads(attention: Any, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return queries, keys and values, (B, heads, T, d) each."""
    shape = (*tokens.shape[:-1], -1, attention.head_dim)
    query, key, value = (
        projection(tokens).view(shape).transpose(1, 2)
        for projection in (attention.q_proj, attention.k_proj, attention.v_proj)
    )
    return query, key, value


def _rest_of_block(layer: Any, tokens: Tensor, mixed: Tensor) -> Tensor:
    """Return a pre-norm block's output, its attention's values (B, heads, T, d) being `mixed`."""
    joined = mixed.transpose(1, 2).reshape(tokens.shape)
    tokens = tokens + layer.self_attn.out_proj(joined)
    out: Tensor = tokens + layer.mlp(layer.layer_norm2(tokens))
    return out


def _attend(query: Tensor, key: Tensor, value: Tensor | None, total: Tensor) -> Tensor:
    """Attend explicitly, some rows at a time, and add the patches' attention to `total`.

    Args:
        query: (1, heads, T, d).
        key: (1, heads, T, d).
        value: (1, heads, T, d); None: only the attention itself is wanted.
        total: (T - 1, T - 1) float32; the heads' mean without the class token is added.

    Returns:
        The mixed values (1, heads, T, d); the queries where there is no `value`.
    """
    heads, count, width = query.shape[1:]
    scaled = query * width**-0.5
    mixed = query if value is None else torch.empty_like(query)
    rows = max(1, _SCORES // (heads * count))
    for start in range(0, count, rows):
        part = slice(start, min(start + rows, count))
        scores = (scaled[:, :, part] @ key.transpose(-1, -2)).float().softmax(dim=-1)
        if value is not None:
            mixed[:, :, part] = scores.to(value.dtype) @ value
        mean = scores[0].mean(dim=0)[:, 1:]
        # Row 0 is the class token's.
        skip = 1 if start == 0 else 0
        total[max(start - 1, 0) : part.stop - 1] += mean[skip:]
    return mixed
