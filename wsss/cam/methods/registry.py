"""CAM methods by name: a record of each, which names its settings and its code.

A method registers itself in a module `<name>_config.py` of this package, or in a file that
`plugins:` of the configuration names; neither imports PyTorch.
"""

from __future__ import annotations

from dataclasses import dataclass

from wsss.runtime.registry import Record, Registry


@dataclass(frozen=True)
class CamMethod(Record):
    """What there is to know of a CAM method.

    Attributes:
        task: Its training, as `module:name`, called like `wsss.cam.model_file.TaskBuilder`; None:
            it trains nothing.
        source: What gives its class maps where it trains nothing, as `module:name`, called like
            `wsss.cam.source.SourceBuilder`; None where a trained classifier gives them.
        classifier: What builds its classifier, as `module:name`, called with its settings and the
            number of classes; None where it trains nothing.
        has_reconstructor: Whether a reconstructor is trained along, which the figures show.
        has_features: Whether its classifier's CAM is features times class weights.
        has_attention: Whether its classifier has attention between patches to refine CAMs with.
    """

    task: str | None = None
    source: str | None = None
    classifier: str | None = None
    has_reconstructor: bool = False
    has_features: bool = False
    has_attention: bool = False


METHODS: Registry[CamMethod] = Registry(
    "CAM method",
    about="Training of the classifier whose CAMs become seeds.",
    key="method",
    default="acr",
    package="wsss.cam.methods",
    suffix="_config",
)
