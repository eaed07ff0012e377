"""Runs: named experiments, each with every stage's settings resolved, and their children.

A run changes the run that it extends; a child is a run that one row of an ablation table changes.
"""

from __future__ import annotations

import copy
import dataclasses
import importlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from wsss.errors import UserError
from wsss.project.ablations import INFIX, Ablations, read_ablations
from wsss.runtime.settings import check, from_dict, to_dict, unknown_key

StopAfter = Literal["cam", "pseudo_label", "segmentation"]

_STAGE_CLASSES = {
    "index": "wsss.data.config.IndexConfig",
    "cam": "wsss.cam.config.CamConfig",
    "export": "wsss.cam.config.ExportConfig",
    "labels": "wsss.irn.config.LabelsConfig",
    "irn": "wsss.irn.config.IrnConfig",
    "pseudo_labels": "wsss.irn.config.PseudoLabelsConfig",
    "segmentation": "wsss.segmentation.config.SegmentationConfig",
    "prediction": "wsss.segmentation.config.PredictionConfig",
    "evaluation": "wsss.evaluation.config.EvaluationConfig",
}
STAGES = tuple(_STAGE_CLASSES)


def stage_class(stage: str) -> type:
    """Return the settings dataclass of a stage.

    Raises:
        UserError: There is no such stage.
    """
    if stage not in _STAGE_CLASSES:
        raise unknown_key(stage, STAGES, where="stage", kind="stage")
    module, _, name = _STAGE_CLASSES[stage].rpartition(".")
    cls: type = getattr(importlib.import_module(module), name)
    return cls


@dataclass(frozen=True)
class RunHeader:
    """The keys of a run beside its stages' settings."""

    root: str
    """Key of `roots`: the data set."""
    extends: str | None = None
    """Another run, whose settings this one changes."""
    stop_after: StopAfter = "segmentation"
    """The last thing that is scored: the run goes no further."""


@dataclass(frozen=True)
class Run:
    """A run with all its settings resolved.

    Attributes:
        name: Name in `runs:`; its files are in `results/<name>/`.
        root: Key of the data set in `roots:`.
        parents: The runs it extends, nearest first.
        stop_after: The last thing that is scored.
        stages: Stage name -> settings dataclass.
        ablations: Rows of its ablation tables.
    """

    name: str
    root: str
    parents: tuple[str, ...]
    stop_after: StopAfter
    stages: Mapping[str, Any]
    ablations: Ablations = field(default_factory=Ablations)

    def settings(self, stage: str) -> dict[str, Any]:
        """Return a stage's settings as plain values, as written to its JSON file."""
        return to_dict(self.stages[stage])


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Return `base` with `over` laid on top: mappings merge, everything else replaces."""
    merged = dict(copy.deepcopy(dict(base)))
    for key, value in over.items():
        old = merged.get(key)
        if isinstance(old, Mapping) and isinstance(value, Mapping):
            merged[key] = merge(old, value)
        else:
            merged[key] = copy.deepcopy(value)
    return merged


def section(values: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Return the mapping called `name`; empty where there is none.

    Raises:
        UserError: It is something else.
    """
    found = values.get(name)
    if found is None:
        return {}
    if not isinstance(found, Mapping):
        raise UserError(f"'{name}' is not a mapping", where=name, expected="keys and values")
    return found


_HEADER_KEYS = tuple(entry.name for entry in dataclasses.fields(RunHeader))


def check_run(name: str, spec: Any, specs: Mapping[str, Any]) -> None:
    """Check the name of a run, its keys and their types, before anything is merged.

    Args:
        name: Name of the run.
        spec: What `runs:` says of it.
        specs: The same of all runs.

    Raises:
        UserError: Something is wrong; the message names the place.
    """
    place = f"runs.{name}"
    if not isinstance(spec, Mapping):
        raise UserError("a run is a mapping of settings", where=place)
    if not name.replace("-", "").replace("_", "").isalnum():
        raise UserError(
            f"'{name}' is no name for a run", where=place, expected="letters, digits, - and _"
        )
    for key, value in spec.items():
        if key in STAGES:
            check(stage_class(key), value, where=f"{place}.{key}")
        elif key not in (*_HEADER_KEYS, "ablations"):
            known = [*STAGES, *_HEADER_KEYS, "ablations"]
            raise unknown_key(key, known, where=f"{place}.{key}")
    parent = spec.get("extends")
    if parent is not None and parent not in specs:
        raise unknown_key(parent, specs, where=f"{place}.extends", kind="run")


def _lineage(name: str, specs: Mapping[str, Any]) -> list[str]:
    line = [name]
    while (parent := specs[line[-1]].get("extends")) is not None:
        if parent in line:
            raise UserError(
                f"the runs {' -> '.join([*line, parent])} extend each other in a circle",
                where=f"runs.{name}.extends",
            )
        line.append(parent)
    return line


def resolve_run(
    name: str,
    specs: Mapping[str, Any],
    defaults: Mapping[str, Any],
    roots: Collection[str],
    ablations: Mapping[str, Any],
) -> Run:
    """Resolve a run: the defaults, then what it extends, furthest first, then its own settings.

    Args:
        name: Name of the run.
        specs: What `runs:` says of all runs, checked by `check_run`.
        defaults: Settings by stage.
        roots: Keys of the data sets.
        ablations: The project's ablations, which a run may change.

    Raises:
        UserError: A setting is missing or impossible, or runs extend each other in a circle.
    """
    line = _lineage(name, specs)
    merged: dict[str, Any] = {}
    for ancestor in reversed(line):
        merged = merge(merged, specs[ancestor])
    header = from_dict(
        RunHeader,
        {key: value for key, value in merged.items() if key in _HEADER_KEYS},
        where=f"runs.{name}",
    )
    if header.root not in roots:
        raise unknown_key(header.root, roots, where=f"runs.{name}.root", kind="root")
    stages: dict[str, Any] = {
        stage: from_dict(
            stage_class(stage),
            merge(defaults.get(stage) or {}, merged.get(stage) or {}),
            where=f"runs.{name}.{stage}",
        )
        for stage in STAGES
    }
    return Run(
        name=name,
        root=header.root,
        parents=tuple(line[1:]),
        stop_after=header.stop_after,
        stages=stages,
        ablations=_ablations(merge(ablations, section(merged, "ablations")), name, specs),
    )


def _ablations(values: Mapping[str, Any], name: str, specs: Mapping[str, Any]) -> Ablations:
    place = f"runs.{name}.ablations"
    ablations = read_ablations(values, where=place)
    for row, changes in ablations.variants.items():
        where = f"{place}.variants.{row}"
        if isinstance(changes, str):
            if changes not in specs:
                raise unknown_key(changes, specs, where=where, kind="run")
            continue
        for stage, settings in changes.items():
            if stage not in STAGES:
                raise unknown_key(stage, STAGES, where=f"{where}.{stage}", kind="stage")
            check(stage_class(stage), settings, where=f"{where}.{stage}")
    return ablations


def child_run(run: Run, row: str) -> Run:
    """Return the run of one ablation row: `run` with a few settings changed, up to the CAMs."""
    name = f"{run.name}{INFIX}{row}"
    changes = run.ablations.changes(row)
    if isinstance(changes, str):
        raise UserError(f"'{row}' is the run '{changes}'", where=name, expected=f"'{changes}'")
    stages = dict(run.stages)
    for stage, settings in changes.items():
        merged = merge(run.settings(stage), settings)
        stages[stage] = from_dict(stage_class(stage), merged, where=f"runs.{name}.{stage}")
    parents = (run.name, *run.parents)
    return Run(name=name, root=run.root, parents=parents, stop_after="cam", stages=stages)
