"""Watches a training against an adversary, and stops it where its CAMs have become empty.

The adversarial objective has an empty optimum: where A_t is a spike, 1[A_t = 0] is the whole
image, and nothing can be reconstructed from X * A_t. Only the image labels stand against it.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from wsss.cam.methods.adversary_settings import CollapseGuard
from wsss.errors import UserError


class Watch(nn.Module):
    """Running means of the mean of A_t and of the classification loss; a module for checkpoints.

    Attributes:
        first: Their means over the first window; float64 (2,).
        sums: Their sums over the window in hand; float64 (2,).
        steps: Steps seen; int64 scalar.
    """

    def __init__(self, config: CollapseGuard) -> None:
        super().__init__()
        self._config = config
        self.first: Tensor
        self.sums: Tensor
        self.steps: Tensor
        self.register_buffer("first", torch.zeros(2, dtype=torch.float64))
        self.register_buffer("sums", torch.zeros(2, dtype=torch.float64))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        self._seen: int | None = None

    def observe(self, map_mean: Tensor, class_loss: Tensor) -> None:
        """Count one step in which both networks learned.

        Args:
            map_mean: Mean of A_t over the batch, scalar.
            class_loss: Mean classification loss of the batch, scalar.

        Raises:
            UserError: The means over a window are beyond a bound.
        """
        if self._seen is None:  # after a restart the checkpoint's
            self._seen = int(self.steps)
        self.sums += torch.stack([map_mean.detach(), class_loss.detach()]).to(self.sums)
        self.steps += 1
        self._seen += 1
        window = self._config.window_steps
        if self._seen % window:
            return
        means = self.sums / window
        self.sums.zero_()
        if self._seen == window:
            self.first.copy_(means)
        else:
            self._judge(self.first.tolist(), means.tolist())

    def _judge(self, first: list[float], now: list[float]) -> None:
        config = self._config
        if now[0] < config.map_mean * first[0]:
            raise self._collapsed(
                f"the mean of A_t fell from {first[0]:.3g} to {now[0]:.3g}: the CAMs are becoming "
                f"empty (the classification loss was {first[1]:.3g}, is {now[1]:.3g})",
                f"{config.map_mean:g} of the first value or more (cam.acr.guard.map_mean)",
            )
        if config.class_loss is not None and now[1] > config.class_loss * first[1]:
            raise self._collapsed(
                f"the classification loss rose from {first[1]:.3g} to {now[1]:.3g}: the adversary "
                f"outweighs the image labels (the mean of A_t was {first[0]:.3g}, is {now[0]:.3g})",
                f"{config.class_loss:g} times the first value at most (cam.acr.guard.class_loss)",
            )

    def _collapsed(self, found: str, expected: str) -> UserError:
        return UserError(
            found,
            where=f"step {self._seen} of those in which classifier and reconstructor both learn",
            expected=f"{expected}, in the mean of {self._config.window_steps} steps",
            fix="lower cam.acr.weights.cu_target and cu_nontarget, cam.acr.balance or the "
            "learning rate (cam.acr.schedule.joint_lr_factor), or give the weights a ramp",
        )


def map_statistics(target_map: Tensor, share: float) -> Mapping[str, Tensor]:
    """Return the mean of A_t and the share of it that is 0, times what part of a batch it is."""
    known = target_map.detach()
    return {
        "map_mean": share * known.mean(),
        "map_zero": share * (known == 0).to(known.dtype).mean(),
    }
