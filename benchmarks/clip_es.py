"""CLIP-ES's maps of an image: the public code's order of computation against ours.

    python -m benchmarks.clip_es                        # a tiny CLIP, and ViT-B/16, at 500x375
    python -m benchmarks.clip_es --size 1500 2000 --network vit-b16 --only-ours

The naive form is written plainly, in the public code's order: explicit attention of all heads in
every block, its mean kept for each; then, for each tagged class again, the last block forwards and
backwards, the affinity from the kept attention, and its square. Ours runs the last block once,
takes all gradients in one batch, adds up the attention of the blocks that count while it goes, and
spreads the maps by two products with the affinity's root.

Weights are random, which does not change the time; both forms get the same, and the same maps.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.harness import Row, add_options, finish, interleave, measure
from wsss.cam.clip_es import box_mask, grad_cam, min_max
from wsss.cam.clip_es_maps import ClipEs, ClipEsOptions
from wsss.models.clip import Clip

NETWORKS = {"tiny": (128, 12), "vit-b16": (768, 12)}
WORDS = ("aeroplane", "dog", "person", "ground", "grass", "sky", "building", "water")
LAYERS = 8
THRESHOLD = 0.4
TOLERANCE = 1e-3
# Random weights of ViT-B/16 blow float32's rounding up: by what the public order itself makes of an
# input that is rounded otherwise, so often.
EPSILON, ROUNDINGS = 1e-7, 10


@cache
def network(name: str) -> Clip:
    """A CLIP with weights of the usual size, each drawn at random."""
    from transformers import CLIPConfig, CLIPModel

    from wsss.models.clip_files import published_tokenizer

    width, layers = NETWORKS[name]
    vision = {
        "patch_size": 16,
        "hidden_size": width,
        "num_attention_heads": width // 64,
        "num_hidden_layers": layers,
        "intermediate_size": 4 * width,
    }
    text = {"num_hidden_layers": 2, "eos_token_id": 49407}
    model = CLIPModel(CLIPConfig(vision_config=vision, text_config=text))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for key, weight in model.named_parameters():
            drawn = torch.randn(weight.shape, generator=generator)
            if key == "logit_scale":
                continue
            if "norm" in key or "layrnorm" in key:
                weight.copy_(0.1 * drawn + (1.0 if key.endswith("weight") else 0.0))
            elif "embedding" in key and "patch" not in key:
                weight.copy_(0.5 * drawn)
            elif weight.dim() == 1:
                weight.copy_(0.1 * drawn)
            else:
                weight.copy_(drawn / weight[0].numel() ** 0.5)
    model.requires_grad_(False).eval().set_attn_implementation("eager")
    return Clip(model, published_tokenizer(), torch.device("cpu"))


@cache
def method(name: str, classes: int, limit_px: int) -> ClipEs:
    clip = network(name)
    texts = clip.embed_texts([f"a clean origami {word}." for word in WORDS])
    options = ClipEsOptions(
        attention_layers=LAYERS, box_threshold=THRESHOLD, long_side_limit_px=limit_px
    )
    return ClipEs(clip, texts[:classes], texts[classes:], options)


def picture(height: int, width: int) -> np.ndarray:
    """A smooth picture, (height, width, 3) uint8."""
    coarse = torch.rand(1, 3, 12, 16, generator=torch.Generator().manual_seed(1))
    smooth = F.interpolate(coarse, size=(height, width), mode="bicubic")[0]
    return np.asarray(smooth.clamp(0, 1).mul(255).to(torch.uint8).permute(1, 2, 0).numpy())


def public_order(es: ClipEs, image: Tensor) -> Tensor:
    """The maps, a class after the other."""
    clip, classes = es.clip, len(es.class_texts)
    vision = clip.model.vision_model
    attention = []
    with torch.no_grad():
        patches = vision.embeddings.patch_embedding(image[None])
        grid = (int(patches.shape[-2]), int(patches.shape[-1]))
        tokens = patches.flatten(2).transpose(1, 2)
        tokens = torch.cat([vision.embeddings.class_embedding[None, None], tokens], dim=1)
        tokens = vision.pre_layrnorm(tokens + clip.positions(grid))
        for layer in vision.encoder.layers[:-1]:
            mixed, weights = layer.self_attn(layer.layer_norm1(tokens))
            attention.append(weights[0].mean(dim=0))
            tokens = tokens + mixed
            tokens = tokens + layer.mlp(layer.layer_norm2(tokens))
    layer, maps = vision.encoder.layers[-1], []
    texts = torch.cat([es.class_texts, es.background_texts])
    for target in range(classes):
        normed = layer.layer_norm1(tokens).requires_grad_()
        mixed, weights = layer.self_attn(normed)
        out = tokens + mixed
        out = vision.post_layernorm(out + layer.mlp(layer.layer_norm2(out)))
        embedding = clip.model.visual_projection(out[0, 1:].mean(dim=0))
        cosines = texts @ (embedding / embedding.norm())
        probability = (clip.model.logit_scale.exp() * cosines).softmax(dim=-1)[target]
        (gradient,) = torch.autograd.grad(probability, normed)
        if target == 0:
            attention.append(weights.detach()[0].mean(dim=0))
        cam = grad_cam(normed.detach()[0, 1:], gradient[:, 1:].mean(dim=1), grid)[0]
        matrix = torch.stack([one[1:, 1:] for one in attention])[-LAYERS:].mean(dim=0)
        for _ in range(3):
            matrix = matrix / matrix.sum(dim=0, keepdim=True)
            matrix = matrix / matrix.sum(dim=1, keepdim=True)
        matrix = (matrix + matrix.T) / 2
        matrix = matrix @ matrix
        mask = box_mask(cam, THRESHOLD, far_edge=True).flatten()[None].float()
        maps.append(min_max(((matrix * mask) @ cam.flatten()).reshape(grid)))
    return torch.stack(maps)


def call(form: str, name: str, height: int, width: int, classes: int) -> Callable[[], None]:
    """One image's maps in one form, for a process of its own."""
    es = method(name, classes, max(height, width))
    image = es.input(picture(height, width))

    def run() -> None:
        if form == "ours":
            es.maps(image, range(classes))
        else:
            public_order(es, image)

    return run


def row(name: str, height: int, width: int, classes: int, *, naive: bool) -> Row:
    case = {"name": name, "height": height, "width": width, "classes": classes}
    forms = ["ours", "naive"] if naive else ["ours"]
    times = interleave(
        {form: call(form, **case) for form in forms}, repeats=3 if naive else 1, warm_up=int(naive)
    )
    peaks = {form: measure(call, form=form, **case).grown_mb for form in forms}
    same, agrees = "not compared", True
    if naive:
        es = method(name, classes, max(height, width))
        image = es.input(picture(height, width))
        public = public_order(es, image)
        noise = torch.randn(image.shape, generator=torch.Generator().manual_seed(2))
        rounded = public_order(es, image * (1 + EPSILON * noise))
        worst = float((es.maps(image, range(classes)) - public).abs().max())
        own = float((rounded - public).abs().max())
        same = f"maps differ by {worst:.1e} at most (public, input rounded otherwise: {own:.1e})"
        agrees = worst < max(TOLERANCE, ROUNDINGS * own)
    return Row(
        stage="CLIP-ES maps",
        case=f"{width}x{height}, {classes} classes",
        backbone=name,
        ours=times["ours"],
        naive=times.get("naive"),
        same=same,
        agrees=agrees,
        peak_mb=peaks["ours"],
        naive_peak_mb=peaks.get("naive"),
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", nargs="+", choices=list(NETWORKS), default=list(NETWORKS))
    parser.add_argument("--size", nargs=2, type=int, metavar=("H", "W"), default=(375, 500))
    parser.add_argument("--classes", nargs="+", type=int, default=[1, 3])
    parser.add_argument("--only-ours", action="store_true", help="for sizes that take minutes")
    add_options(parser)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    height, width = options.size
    rows = [
        row(name, height, width, classes, naive=not options.only_ours)
        for name in options.network
        for classes in options.classes
    ]
    return finish(rows, options)


if __name__ == "__main__":
    sys.exit(main())
