"""How pseudo-labels are made of class maps, by name: a record each, settings and code apart.

A method registers itself in a module `<name>_label_config.py` of this package, which imports no
PyTorch.
"""

from __future__ import annotations

from dataclasses import dataclass

from wsss.maps.background import AUTO
from wsss.runtime.registry import Record, Registry
from wsss.runtime.settings import Settings


class LabelSettings(Settings):
    """Settings of a way to make pseudo-labels; each adds its own to these."""

    method: str
    """The method, by its name in the registry."""

    @property
    def score_threshold(self) -> float:
        """The background score at which the stage's maps are its labels."""
        raise NotImplementedError

    @property
    def needs_chosen(self) -> bool:
        """Whether its background score is chosen from the maps."""
        return getattr(self, "background", None) == AUTO


@dataclass(frozen=True)
class LabelMethod(Record):
    """What there is to know of a way to make pseudo-labels.

    Attributes:
        function: What makes the labels, as `module:name`, called like
            `wsss.irn.label_stage.make_labels`; `model` only where `needs_model`.
        needs_model: Whether it needs a trained IRNet, and so the stages that train one.
    """

    function: str
    needs_model: bool


LABEL_METHODS: Registry[LabelMethod] = Registry(
    "pseudo-label method",
    about="From class maps to one label map an image.",
    key="method",
    default="irn",
    package="wsss.irn",
    suffix="_label_config",
)
