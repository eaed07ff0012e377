"""Settings of the evaluation stage."""

from __future__ import annotations

from dataclasses import dataclass

from wsss.errors import UserError


@dataclass(frozen=True)
class EvaluationConfig:
    """How seeds and pseudo-labels are swept, and which images the panels show."""

    seed_split: str = "train"
    """Image set on which CAMs and pseudo-labels are scored."""
    cam_background: float = 0.28
    """The configured background score of the CAMs, 0..1; pseudo-labels bring their own."""
    sweep_first: float = 0.0
    """Lowest background score of the sweep, 0..1."""
    sweep_last: float = 0.99
    """Highest background score of the sweep, 0..1."""
    sweep_step: float = 0.01
    """Distance between two background scores of the sweep."""
    panel_count: int = 8
    """How many images the panels show, evenly spaced through the sorted split."""
    panel_names: tuple[str, ...] = ()
    """Names of the images the panels show; empty: `panel_count` of them are chosen."""

    def __post_init__(self) -> None:
        for key in ("cam_background", "sweep_first", "sweep_last"):
            value = getattr(self, key)
            if not 0.0 <= value <= 1.0:
                raise UserError(f"{key} is {value}", where=key, expected="a number in 0..1")
        if self.sweep_last < self.sweep_first:
            raise UserError(
                f"sweep_last ({self.sweep_last}) is below sweep_first ({self.sweep_first})",
                where="sweep_last",
                expected="sweep_first <= sweep_last",
            )
        if not 1e-4 <= self.sweep_step <= 1.0:
            raise UserError(
                f"sweep_step is {self.sweep_step}",
                where="sweep_step",
                expected="a number in 0.0001..1",
            )
        if self.panel_count < 1:
            raise UserError(
                f"panel_count is {self.panel_count}", where="panel_count", expected="at least 1"
            )

    def thresholds(self, configured: float) -> tuple[float, ...]:
        """Return the background scores of the sweep, ascending, `configured` among them."""
        steps = int((self.sweep_last - self.sweep_first) / self.sweep_step + 1e-6)
        # Rounded, so that 0.29 is 0.29 and equal to a configured 0.29.
        grid = {round(self.sweep_first + i * self.sweep_step, 6) for i in range(steps + 1)}
        return tuple(sorted(grid | {round(configured, 6)}))
