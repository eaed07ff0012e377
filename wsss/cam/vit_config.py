"""Settings of CAM training with a vision transformer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from wsss.errors import UserError


@dataclass(frozen=True)
class VitConfig:
    """The transformer and its optimiser; the defaults are MCTformerV2's (CVPR 2022)."""

    weights_option: ClassVar[str] = "transformer-weights-file"

    name: str = "deit_small_patch16_224"
    """A plain ViT or DeiT of timm (MCTformer: deit_small_patch16_224; deit_tiny_... for CPUs)."""

    weights: str = "none"
    """`none` (random) or a weight file's key: of DeiT, ViT, or an MCTformer checkpoint."""

    depth: int | None = None
    """Layers, where not the named model's own; published weights need null."""

    class_attention_layers: int = 3
    """Class attention is summed over this many last layers (MCTformer: 3)."""

    drop_path: float = 0.1
    """Largest stochastic-depth rate, reached at the last layer (MCTformer: 0.1)."""

    learning_rate_at_512: float = 5e-4
    """AdamW's peak learning rate at batch 512, linear in the batch size (MCTformer: 5e-4)."""

    final_learning_rate: float = 1e-5
    """Where the cosine ends (MCTformer: 1e-5)."""

    warmup_learning_rate: float = 1e-6
    """Where the warm-up begins (MCTformer: 1e-6)."""

    warmup_epochs: float = 5.0
    """Length of the linear warm-up (MCTformer: 5)."""

    weight_decay: float = 0.05
    """Weight decay; none on biases, norms, class tokens and positions (MCTformer: 0.05)."""

    def __post_init__(self) -> None:
        for name in ("depth", "class_attention_layers"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"vit.{name} is {value}", expected="1 or more")
        for name in ("learning_rate_at_512", "final_learning_rate", "warmup_learning_rate"):
            if getattr(self, name) <= 0:
                raise UserError(f"vit.{name} is {getattr(self, name)}", expected="above 0")
        for name in ("weight_decay", "warmup_epochs"):
            if getattr(self, name) < 0:
                raise UserError(f"vit.{name} is {getattr(self, name)}", expected="0 or more")
        if not 0 <= self.drop_path < 1:
            raise UserError(f"vit.drop_path is {self.drop_path}", expected="0 to below 1")
        if self.weights in ("", "package"):
            raise UserError(
                f"vit.weights is {self.weights!r}",
                expected="'none' or a weight file's key; no transformer comes as a pip package",
            )

    def peak_learning_rate(self, batch_size: int) -> float:
        """Return the peak learning rate for `batch_size`, linear in it."""
        return self.learning_rate_at_512 * batch_size / 512

    def check_schedule(self, epochs: int, batch_size: int) -> None:
        """Raise a `UserError` unless warm-up and cosine fit a training."""
        if self.warmup_epochs > epochs:
            raise UserError(
                f"vit.warmup_epochs is {self.warmup_epochs:g} in a training of {epochs} epochs",
                expected=f"at most cam.epochs, {epochs}",
            )
        peak = self.peak_learning_rate(batch_size)
        warmed = self.warmup_learning_rate if self.warmup_epochs else 0.0
        if peak < max(self.final_learning_rate, warmed):
            raise UserError(
                f"vit.learning_rate_at_512 is {self.learning_rate_at_512:g}, whose peak at batch "
                f"size {batch_size} is {peak:.3g}, below where the schedule ends "
                f"({self.final_learning_rate:g}) or begins ({warmed:g})",
                expected="a peak above both",
                fix="raise vit.learning_rate_at_512, or lower vit.final_learning_rate and "
                "vit.warmup_learning_rate",
            )
