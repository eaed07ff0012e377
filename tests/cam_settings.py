"""Settings of a CAM method from values that other methods may have, too."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from wsss.cam.config import CamSettings
from wsss.cam.methods.registry import METHODS
from wsss.runtime.registry import used


def cam_settings(values: Mapping[str, Any]) -> Any:
    """Return settings from plain values, those of the method that has them."""
    return METHODS.parse(used(METHODS, values, {}, where="cam"), where="cam")


def as_method(settings: CamSettings, method: str, **changes: Any) -> Any:
    """Return another method's settings, as far as it has them, with some changed."""
    cls = METHODS.get(method, where="method").settings
    values = {key: value for key, value in settings if key in cls.model_fields and key != "method"}
    return cls(**{**values, **changes})
