"""Settings of CAM training with a vision transformer."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from pydantic import model_validator

from wsss.cam.config import TrainedSettings
from wsss.cam.methods.registry import METHODS, CamMethod
from wsss.runtime.settings import BelowOne, Count, NonNegative, Positive, Settings, impossible


class VitConfig(Settings):
    """The transformer and its optimiser; the defaults are MCTformerV2's (CVPR 2022)."""

    weights_option: ClassVar[str] = "transformer-weights-file"
    weights_check: ClassVar[str] = "wsss.models.published.vit_weights:check_vit_weights"

    name: str = "deit_small_patch16_224"
    """A plain ViT or DeiT of timm (MCTformer: deit_small_patch16_224; deit_tiny_... for CPUs)."""
    weights: str = "none"
    """`none` (random), `timm` (those that timm names, from its hub, cached), or a weight file's
    key: of DeiT, ViT, or an MCTformer checkpoint."""
    depth: Count | None = None
    """Layers, where not the named model's own; published weights need null."""
    class_attention_layers: Count = 3
    """Class attention is summed over this many last layers (MCTformer: 3)."""
    drop_path: BelowOne = 0.1
    """Largest stochastic-depth rate, reached at the last layer (MCTformer: 0.1)."""
    learning_rate_at_512: Positive = 5e-4
    """AdamW's peak learning rate at batch 512, linear in the batch size (MCTformer: 5e-4)."""
    final_learning_rate: Positive = 1e-5
    """Where the cosine ends (MCTformer: 1e-5)."""
    warmup_learning_rate: Positive = 1e-6
    """Where the warm-up begins (MCTformer: 1e-6)."""
    warmup_epochs: NonNegative = 5.0
    """Length of the linear warm-up (MCTformer: 5)."""
    weight_decay: NonNegative = 0.05
    """Weight decay; none on biases, norms, class tokens and positions (MCTformer: 0.05)."""

    @model_validator(mode="after")
    def _weights_are_a_key(self) -> Self:
        if self.weights in ("", "package", "hub"):
            raise impossible(
                f"vit.weights is {self.weights!r}",
                key="weights",
                expected="'timm', 'none' or a weight file's key; no transformer comes as a pip "
                "package",
            )
        return self

    def peak_learning_rate(self, batch_size: int) -> float:
        """Return the peak learning rate for `batch_size`, linear in it."""
        return self.learning_rate_at_512 * batch_size / 512


class TransformerSettings(TrainedSettings):
    """What a training of a transformer has."""

    vit: VitConfig = VitConfig()
    """The classifier of `acr-vit` and `mct`, and how it is optimised."""

    @model_validator(mode="after")
    def _schedule_fits_the_training(self) -> Self:
        vit = self.vit
        if vit.warmup_epochs > self.epochs:
            raise impossible(
                f"vit.warmup_epochs is {vit.warmup_epochs:g} in a training of {self.epochs} epochs",
                key="vit.warmup_epochs",
                expected=f"at most cam.epochs, {self.epochs}",
            )
        peak = vit.peak_learning_rate(self.batch_size)
        warmed = vit.warmup_learning_rate if vit.warmup_epochs else 0.0
        if peak < max(vit.final_learning_rate, warmed):
            raise impossible(
                f"vit.learning_rate_at_512 is {vit.learning_rate_at_512:g}, whose peak at batch "
                f"size {self.batch_size} is {peak:.3g}, below where the schedule ends "
                f"({vit.final_learning_rate:g}) or begins ({warmed:g})",
                key="vit.learning_rate_at_512",
                expected="a peak above both",
                fix="raise vit.learning_rate_at_512, or lower vit.final_learning_rate and "
                "vit.warmup_learning_rate",
            )
        return self


class MctSettings(TransformerSettings):
    """Settings of MCTformerV2."""

    method: Literal["mct"] = "mct"
    """MCTformerV2 alone."""


METHODS.register(
    CamMethod(
        name="mct",
        description="MCTformerV2, a transformer",
        settings=MctSettings,
        task="wsss.cam.methods.transformer:MctMethod",
        classifier="wsss.cam.methods.transformer:build_transformer",
        has_attention=True,
    )
)
