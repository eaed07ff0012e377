"""The file of chosen background scores, `thresholds.json`, and settings that wait for it.

Where a setting is `auto`, its number stands in that file, by the maps that it was chosen from
(`cam` or `walked`), beside how it came about. A stage is handed the file, and has its settings with
the numbers in them.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

from wsss.errors import UserError
from wsss.files import read_json, write_json
from wsss.maps.background import AUTO
from wsss.runtime.settings import Settings, replace

S = TypeVar("S", bound=Settings)
Maps = Literal["cam", "walked"]
FORMAT = "wsss-thresholds"
FORMAT_VERSION = 1

KEYS: Mapping[str, tuple[str, ...]] = {
    "evaluation": ("cam_background",),
    "labels": ("foreground_threshold", "background_threshold"),
    "pseudo_labels": ("background",),
}
"""Section -> its settings that may be `auto`."""

FOREGROUND_ODDS = 1.5
BACKGROUND_ODDS = 0.4


def surely_object(score: float) -> float:
    """Return the score above which a pixel is surely object, of the one that parts both.

    Its odds, t / (1 - t), are `FOREGROUND_ODDS` times as high: 0.28 becomes 0.37, 0.4 becomes 0.5.
    """
    return _at_odds(score, FOREGROUND_ODDS)


def surely_background(score: float) -> float:
    """Return the score below which a pixel is surely background, of the one that parts both.

    Its odds are `BACKGROUND_ODDS` times those of `score`: 0.28 becomes 0.13, 0.4 becomes 0.21.
    """
    return _at_odds(score, BACKGROUND_ODDS)


def _at_odds(score: float, factor: float) -> float:
    # Never on the ends, where nothing would be labelled.
    inner = min(max(score, 0.01), 0.99)
    odds = factor * inner / (1 - inner)
    return min(max(round(odds / (1 + odds), 2), 0.01), 0.99)


def chosen_entry(maps: Maps, score: float, *, method: str, **how: Any) -> dict[str, Any]:
    """Return what the file says of one kind of maps.

    Args:
        maps: Which maps the score was chosen from.
        score: The background score that parts object and background.
        method: What chose it, in a few words.
        how: What else is worth knowing, such as the sample.
    """
    settings = {"pseudo_labels.background": score}
    if maps == "cam":
        settings |= {
            "evaluation.cam_background": score,
            "labels.foreground_threshold": surely_object(score),
            "labels.background_threshold": surely_background(score),
        }
    return {"score": score, "method": method, **how, "settings": settings}


def write_chosen(path: str | os.PathLike[str], entries: Mapping[Maps, Mapping[str, Any]]) -> None:
    """Write chosen scores: kind of maps -> `chosen_entry`."""
    write_json(path, {"format": FORMAT, "format_version": FORMAT_VERSION, "maps": entries})


def is_chosen(path: Path) -> bool:
    """Say whether a file is one of chosen background scores."""
    try:
        values = read_json(path)
    except UserError:
        return False
    return isinstance(values, dict) and values.get("format") == FORMAT


def read_chosen(path: str | os.PathLike[str], maps: Maps) -> Mapping[str, Any]:
    """Read what `chosen_entry` made of one kind of maps.

    Raises:
        UserError: The file is missing or something else, or has no scores of these maps.
    """
    values = read_json(path)
    if not isinstance(values, dict) or values.get("format") != FORMAT:
        raise UserError("this is no file of chosen background scores", where=path)
    if values.get("format_version") != FORMAT_VERSION:
        raise UserError(
            f"these scores are of version {values.get('format_version')}",
            where=path,
            expected=f"version {FORMAT_VERSION}",
            fix="run the stage that writes it again",
        )
    entries = values.get("maps")
    if not isinstance(entries, dict) or not all(map(_is_entry, entries.values())):
        raise UserError(
            "these scores are damaged",
            where=path,
            expected="`maps`: by their kind a `score` and `settings`, numbers from 0 to 1",
            fix="run the stage that writes it again",
        )
    if maps not in entries:
        raise UserError(
            f"its scores are of {' and '.join(entries) or 'no'} maps",
            where=path,
            expected=f"a score of {maps} maps",
            fix="hand over the file that belongs to this stage, or set a number",
        )
    found: Mapping[str, Any] = entries[maps]
    return found


def _is_entry(entry: Any) -> bool:
    if not isinstance(entry, dict) or not isinstance(entry.get("settings"), dict):
        return False
    return all(map(_is_score, (entry.get("score"), *entry["settings"].values())))


def _is_score(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= 1


def with_chosen(section: str, settings: S, path: Path | None, *, maps: Maps = "cam") -> S:
    """Return settings with the chosen numbers where they say `auto`.

    Args:
        section: Whose settings they are.
        settings: The settings.
        path: The file of chosen scores; None: nothing here is `auto`.
        maps: Which maps the scores are to be of.

    Raises:
        UserError: A setting is `auto` and there is no file, or the file is of other maps; or there
            is a file and nothing is `auto`; or the numbers do not go with the others.
    """
    open_keys = [key for key in KEYS[section] if getattr(settings, key, None) == AUTO]
    if not open_keys and path is None:
        return settings
    names = " and ".join(f"{section}.{key}" for key in open_keys or KEYS[section])
    if not open_keys:
        raise UserError(
            f"chosen scores were given, and nothing of {names} is 'auto'",
            where="--thresholds",
            fix="leave --thresholds away, or set it to auto",
        )
    if path is None:
        raise UserError(
            f"{names} is 'auto', and no chosen scores were given",
            where="--thresholds",
            expected="what `wsss choose-thresholds` or `wsss thresholds --output` writes",
            fix="--thresholds results/RUN/thresholds.json, or set a number",
        )
    numbers = read_chosen(path, maps)["settings"]
    lacking = [key for key in open_keys if f"{section}.{key}" not in numbers]
    if lacking:
        raise UserError(
            f"these scores have no {section}.{lacking[0]}",
            where=path,
            fix="run the stage that writes it again",
        )
    chosen = {key: float(numbers[f"{section}.{key}"]) for key in open_keys}
    try:
        return replace(settings, **chosen)
    except UserError as error:
        said = ", ".join(f"{section}.{key} {value:g}" for key, value in chosen.items())
        raise UserError(
            f"{error.found}; chosen where it is 'auto': {said}",
            where=path,
            expected=error.expected,
            fix=f"set {names} to a number that fits, or the others to auto as well",
        ) from None
