"""The transformer as a family of classifiers: its weights, its AdamW, its cosine schedule.

MCTformerV2 (MCTformer, CVPR 2022); `acr-vit` trains the same against ACR's reconstructor (ACR,
CVPR 2023, supplementary, section B).
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from torch import nn
from torch.optim import AdamW

from wsss.cam.methods.plain import Family, PlainMethod
from wsss.cam.methods.transformer_config import TransformerSettings
from wsss.errors import UserError
from wsss.models.classifier import Classifier
from wsss.models.hub import timm_weights
from wsss.models.published.vit_weights import load_vit_weights
from wsss.models.vit import MCTformerV2
from wsss.models.vit_classifier import TransformerClassifier
from wsss.training.schedule import Schedule, cosine_learning_rate


def build_transformer(
    config: TransformerSettings,
    n_classes: int,
    *,
    weights_file: Path | None = None,
    transformer_weights_file: Path | None = None,
) -> TransformerClassifier:
    """Build the transformer with its initial weights.

    Args:
        config: Settings of the training.
        n_classes: Classes, background not among them.
        weights_file: Of convolutional networks: not used.
        transformer_weights_file: The file that `config.vit.weights` names, where it names one.

    Raises:
        UserError: A file is missing or does not fit, or the crop is no multiple of the patch.
    """
    vit = config.vit
    network = MCTformerV2(
        vit.name,
        n_classes,
        drop_path=vit.drop_path,
        class_attention_layers=vit.class_attention_layers,
        depth=vit.depth,
    )
    classifier = TransformerClassifier(network)
    patch = classifier.size_multiple
    if config.crop_px % patch:
        below = config.crop_px // patch * patch
        raise UserError(
            f"cam.crop_px is {config.crop_px}, and {vit.name} has patches of {patch} px",
            expected=f"a multiple of {patch}, such as {below or patch} or {below + patch}",
        )
    if vit.weights == "timm":
        network.origin = timm_weights(vit.name)
        transformer_weights_file = network.origin.path
    if vit.weights != "none":
        if transformer_weights_file is None:
            raise UserError(
                f"no file was given for the weights '{vit.weights}' of {vit.name}",
                fix="give its path (--transformer-weights-file), or set vit.weights to 'none'",
            )
        load_vit_weights(classifier.network, transformer_weights_file)
    return classifier


def adamw(config: TransformerSettings, classifier: Classifier) -> AdamW:
    """Build AdamW; vectors, class tokens and position embeddings have no weight decay (DeiT)."""
    decayed: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    assert isinstance(classifier, TransformerClassifier)
    exempt = classifier.network.no_weight_decay()
    for name, parameter in classifier.network.named_parameters():
        (others if parameter.dim() <= 1 or name in exempt else decayed).append(parameter)
    return AdamW(
        [
            {"params": decayed, "weight_decay": config.vit.weight_decay},
            {"params": others, "weight_decay": 0.0},
        ],
        lr=config.vit.peak_learning_rate(config.batch_size),
    )


def cosine_schedule(config: TransformerSettings) -> Schedule:
    """Return the factor on the peak learning rate: linear warm-up, then a cosine, step by step."""
    vit = config.vit

    def factor(step: int, total_steps: int) -> float:
        peak = vit.peak_learning_rate(config.batch_size)
        rate = cosine_learning_rate(
            step,
            total_steps,
            warmup_steps=round(total_steps * vit.warmup_epochs / config.epochs),
            peak=peak,
            final=vit.final_learning_rate,
            start=vit.warmup_learning_rate,
        )
        return rate / peak

    return factor


TRANSFORMER = Family(build_transformer, adamw, cosine_schedule)
MctMethod = partial(PlainMethod, family=TRANSFORMER)
