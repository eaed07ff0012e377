"""The random walk along IRNet's affinities, as a way to make pseudo-labels."""

from __future__ import annotations

from wsss.irn.config import PseudoLabelsConfig
from wsss.irn.label_methods import LABEL_METHODS, LabelMethod

LABEL_METHODS.register(
    LabelMethod(
        name="irn",
        description="random walk along IRNet's affinities",
        settings=PseudoLabelsConfig,
        function="wsss.irn.pseudo_labels:make_pseudo_labels",
        needs_model=True,
    )
)
