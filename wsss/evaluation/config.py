"""Settings of the evaluation stage."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from wsss.maps.background import AUTO, Background, PowerBackground, threshold_of
from wsss.runtime.settings import Count, Fraction, Number, Settings, impossible


class EvaluationConfig(Settings):
    """How seeds and pseudo-labels are swept, and which images the panels show."""

    seed_split: str = "train"
    """Image set on which CAMs and pseudo-labels are scored."""
    cam_background: Background = AUTO
    """The configured background of the CAMs: a constant score, 0..1, or `{alpha: 1}` for (1 - the
    largest class)^1, or `auto`, chosen without masks; pseudo-labels bring their own."""
    sweep_first: Fraction = 0.0
    """Lowest background score of the sweep, 0..1."""
    sweep_last: Fraction = 0.99
    """Highest background score of the sweep, 0..1."""
    sweep_step: Annotated[Number, Field(ge=1e-4, le=1)] = 0.01
    """Distance between two background scores of the sweep."""
    tag_share: Fraction = 0.005
    """Share of a picture from which a class counts as found, where tags.csv compares with tags."""
    panel_count: Count = 8
    """How many images the panels show, evenly spaced through the sorted split."""
    panel_names: tuple[str, ...] = ()
    """Names of the images the panels show, of any set; where none is in the set that is shown,
    `panel_count` of it are chosen."""

    @model_validator(mode="after")
    def _sweep_goes_up(self) -> Self:
        if self.sweep_last < self.sweep_first:
            raise impossible(
                f"sweep_last ({self.sweep_last}) is below sweep_first ({self.sweep_first})",
                key="sweep_last",
                expected="sweep_first <= sweep_last",
            )
        return self

    @property
    def cam_threshold(self) -> float:
        """The configured background of the CAMs as a constant score.

        Raises:
            UserError: It is `auto`.
        """
        return threshold_of(self.cam_background)

    @property
    def needs_chosen(self) -> bool:
        """Whether that score is chosen from the maps."""
        return self.cam_background == AUTO

    def thresholds(self, configured: float) -> tuple[float, ...]:
        """Return the background scores of the sweep, ascending, `configured` among them.

        Where background is a power, those that whole powers amount to are among them, too.
        """
        steps = int((self.sweep_last - self.sweep_first) / self.sweep_step + 1e-6)
        # Rounded, so that 0.29 is 0.29 and equal to a configured 0.29.
        grid = {round(self.sweep_first + i * self.sweep_step, 6) for i in range(steps + 1)}
        if isinstance(self.cam_background, PowerBackground):
            powers = (PowerBackground(alpha=float(alpha)) for alpha in range(1, 11))
            grid |= {round(threshold_of(power), 6) for power in powers}
        return tuple(sorted(grid | {round(configured, 6)}))
