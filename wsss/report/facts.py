"""What a run was: its settings, times, versions, scores and losses, read from its files."""

from __future__ import annotations

import importlib.metadata
import json
import platform
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wsss.data.json_files import parse_json
from wsss.errors import UserError
from wsss.evaluation.tables import (
    CURVE_COLUMNS,
    Row,
    read_notes,
    read_rows,
    read_table,
)
from wsss.files import read_json_object, read_text
from wsss.runtime.registry import Registry, load_code
from wsss.runtime.settings import to_dict
from wsss.runtime.times import read_seconds

# By name: the records are of all stages, and what is said of another one changes no report.
SECTIONS: Mapping[str, str] = load_code("wsss.stages:SECTIONS")
STAGES: Mapping[str, Any] = load_code("wsss.stages:STAGES")
PACKAGES = ("wsss", "torch", "torchvision", "timm", "numpy", "snakemake")


@dataclass(frozen=True)
class Difference:
    """A setting that is not its default."""

    key: str
    value: str
    default: str


@dataclass(frozen=True)
class Training:
    """What a training logged.

    Attributes:
        name: Its stage.
        steps: Steps finished at each line.
        losses: Name -> value at each line; the sum first.
    """

    name: str
    steps: tuple[int, ...]
    losses: Mapping[str, tuple[float, ...]]


def flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield dotted keys and values of nested settings."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def settings_of(folder: Path) -> dict[str, Any]:
    """Return `section.key` -> value of all settings of a run, in the order of the stages."""
    found: dict[str, Any] = {}
    for section in SECTIONS:
        file = folder / "config" / f"{section}.json"
        if file.is_file():
            found |= dict(flat(read_json_object(file), f"{section}."))
    return found


def _defaults(section: str, values: Mapping[str, Any]) -> dict[str, Any]:
    kind = load_code(SECTIONS[section])
    if isinstance(kind, Registry):
        chosen = kind.get(values.get(kind.key, kind.default), where=section)
        return to_dict(chosen.settings())
    return to_dict(kind())


def differences(folder: Path) -> list[Difference]:
    """Return the settings of a run that differ from the built-in defaults.

    Of a setting that has no default, such as those of a plug-in that is not here, none is said.
    """
    found = []
    for section in SECTIONS:
        file = folder / "config" / f"{section}.json"
        if not file.is_file():
            continue
        values = read_json_object(file)
        usual = dict(flat(_defaults(section, values), f"{section}."))
        for key, value in flat(values, f"{section}."):
            if shown(value) != shown(usual.get(key)):
                found.append(Difference(key, shown(value), shown(usual.get(key))))
    return found


def shown(value: Any) -> str:
    """Return a setting as text, as in YAML."""
    if value is None:
        return "-"
    return value if isinstance(value, str) else json.dumps(value)


def times(folder: Path) -> dict[str, float]:
    """Return job -> seconds of the jobs whose time Snakemake measured, in the stages' order."""
    found: dict[str, float] = {}
    for file in sorted((folder / "benchmarks").rglob("*.tsv")):
        name = file.relative_to(folder / "benchmarks").with_suffix("").as_posix()
        if not name.startswith("config") and (taken := read_seconds(file)):
            found[name] = taken
    order = list(STAGES)

    def place(name: str) -> tuple[int, str]:
        fits = [i for i, stage in enumerate(order) if name.split("/")[0].startswith(stage)]
        # `pseudo_labels` and `score_maps_cam` begin with several names: the longest is theirs.
        return max(fits, key=lambda i: len(order[i]), default=len(order)), name

    return {name: found[name] for name in sorted(found, key=place)}


def versions() -> dict[str, str]:
    """Return package -> version of what is installed here, and Python's."""
    found = {"Python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def scores(folder: Path) -> list[Row]:
    """Return the rows of a run's table; of its stages' tables where it has none yet."""
    table = folder / "miou.csv"
    if table.is_file():
        return read_rows(table)
    files = sorted((folder / "evaluation").glob("*.csv"))
    return [row for file in files if not file.stem.endswith("_curve") for row in read_rows(file)]


def notes(folder: Path) -> list[str]:
    """Return what a run's table says of what it leaves out."""
    table = folder / "miou.csv"
    return read_notes(table) if table.is_file() else []


def curves(folder: Path) -> dict[str, list[dict[str, float]]]:
    """Return stage -> points of its sweep over background scores."""
    found = {}
    for stage in ("cam", "pseudo_label"):
        file = folder / "evaluation" / f"{stage}_curve.csv"
        if file.is_file():
            found[stage] = [
                {key: float(text or "nan") for key, text in row.items()}
                for row in read_table(
                    file, read_text(file).splitlines(), CURVE_COLUMNS, CURVE_COLUMNS
                )
            ]
    return found


def trainings(folder: Path) -> list[Training]:
    """Return what the trainings of a run logged."""
    found = []
    for stage in STAGES.values():
        if stage.work_dir is None:
            continue
        file = folder / stage.work_dir / "metrics.jsonl"
        if not file.is_file():
            continue
        lines = [line for line in _logged(file) if "loss" in line]
        if lines:
            names = [key for key in lines[0] if key == "loss" or key.endswith("_total")]
            parts = [key for key in lines[0] if _is_part(key)] if names == ["loss"] else []
            keys = [key for key in (*names, *parts) if all(key in line for line in lines)]
            values = {key: tuple(float(line[key]) for line in lines) for key in keys}
            found.append(Training(stage.name, tuple(line["step"] for line in lines), values))
    return found


def _logged(file: Path) -> list[dict[str, Any]]:
    """Return the lines of a training's log.

    Raises:
        UserError: One is no object of a step and numbers.
    """
    lines = []
    for number, text in enumerate(read_text(file).splitlines(), start=1):
        line = parse_json(text, f"{file}, line {number}") if text else {"step": 0}
        if not isinstance(line, dict) or type(line.get("step")) is not int or not _is_sum(line):
            raise UserError(
                "this line is not as a training logs it",
                where=f"{file}, line {number}",
                expected="an object with its step, a whole number, and numbers",
                fix="delete the line: its values are then not drawn",
            )
        lines.append(line)
    return lines


def _is_sum(line: Mapping[str, Any]) -> bool:
    """Say whether the losses of a line are numbers; what else it holds is not drawn."""
    drawn = [key for key in line if key == "loss" or key.endswith("_total") or _is_part(key)]
    return all(type(line[key]) in (int, float) for key in drawn)


def _is_part(key: str) -> bool:
    return key.startswith(("affinity_", "displacement_"))
