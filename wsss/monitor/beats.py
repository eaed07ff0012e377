"""Heartbeats as they are found: whole, half written, of another version, or somebody else's text.

What is shown of a run comes from files that a process may be writing, on disks that may be full. A
value that is not what a stage writes is left out; a file that does not say the least is none.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wsss.errors import UserError
from wsss.files import read_json
from wsss.runtime.heartbeat import heartbeat_file

_STATES = ("running", "done", "failed", "stopped")
_TEXTS = ("command", "host", "message", "unit")
_TIMES = ("time", "started", "progressed")
# What counts, and what is measured; `bool` is no number here.
_COUNTS = ("pid", "done", "total", "epoch", "epochs", "step", "steps")
_MEASURES = ("loss", "images_per_s", "eta_s")
# The year 9999: later ones cannot be shown as a date. No count of anything here comes near it.
LARGEST = 253_402_300_799


def read_beat(output: Path) -> dict[str, Any]:
    """Return the heartbeat of the stage that writes `output`; empty: there is none to be read."""
    try:
        values = read_json(heartbeat_file(output))
    except UserError:
        return {}
    if not isinstance(values, dict) or values.get("state") not in _STATES:
        return {}
    beat = {key: value for key, value in values.items() if _is_sound(key, value)}
    return beat if beat.keys() >= {"state", "time", "started", "pid"} else {}


def _is_sound(key: str, value: Any) -> bool:
    if key == "state" or (key == "process" and value is None):
        return True
    if key in _TEXTS:
        return isinstance(value, str)
    if key in _TIMES:
        return is_time(value)
    if key in _COUNTS:
        return isinstance(value, int) and is_time(value)
    if key in _MEASURES:
        return is_number(value)
    return is_number(value) or isinstance(value, str)


def is_number(value: Any) -> bool:
    """Say whether a value of a JSON file is a number that can be shown; NaN and infinity can."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    # Compared before anything else is done to it: a whole number may be too large for a float.
    return abs(value) <= LARGEST or (isinstance(value, float) and not math.isfinite(value))


def is_time(value: Any) -> bool:
    """Say whether a value is a point in time, seconds since 1970."""
    return is_number(value) and math.isfinite(value) and value >= 0


def number(beat: Mapping[str, Any], key: str, default: float = 0.0) -> float:
    """Return a finite number of a heartbeat; `default` where it has none of that name."""
    value = beat.get(key)
    return float(value) if is_number(value) and math.isfinite(value) else default  # type: ignore[arg-type]
