"""Weakly supervised semantic segmentation: from image-level tags to a trained model.

Importing this loads nothing else: each name comes, with what it needs, when it is first used.

- `load`: a trained model, to segment pictures with.
- `CamStore`: the class activation maps of a run, by image.
- `UserError`: what is raised for something that a person can mend.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wsss.api.cam_store import Cams, CamStore
    from wsss.api.model import Model, Result, load
    from wsss.errors import UserError

__version__ = "0.1.0"

__all__ = ["CamStore", "Cams", "Model", "Result", "UserError", "__version__", "load"]

_PLACES = {
    "CamStore": "wsss.api.cam_store",
    "Cams": "wsss.api.cam_store",
    "Model": "wsss.api.model",
    "Result": "wsss.api.model",
    "UserError": "wsss.errors",
    "load": "wsss.api.model",
}


def __getattr__(name: str) -> Any:
    place = _PLACES.get(name)
    if place is None:
        raise AttributeError(f"module 'wsss' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(place), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
