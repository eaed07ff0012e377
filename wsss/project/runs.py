"""Runs: named experiments, each with every stage's settings resolved, and their children.

A run changes the run that it extends; a child is a run that one row of an ablation table changes,
or one row and one seed of a comparison of methods.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from wsss.errors import UserError
from wsss.project import methods as comparison
from wsss.project.ablations import INFIX, Ablations, read_ablations
from wsss.project.file import STAGES, RunHeader, StopAfter, stage_kind
from wsss.project.methods import Methods, read_methods
from wsss.project.names import EXPECTED, is_name
from wsss.runtime.registry import parse_kind, used
from wsss.runtime.settings import Settings, parse, replace, to_dict, unknown_key


@dataclass(frozen=True)
class Run:
    """A run with all its settings resolved.

    Attributes:
        name: Name in `runs:`; its files are in `results/<name>/`.
        root: Key of the data set in `roots:`.
        parents: The runs it extends, nearest first.
        stop_after: The last thing that is scored.
        stages: Stage name -> settings.
        ablations: Rows of its ablation tables.
        methods: What it is compared with.
        merged: Stage name -> values from all layers, those that have no effect here among them.
        lent_cams: The run whose CAMs it has, unchanged; None: it makes its own, if any.
    """

    name: str
    root: str
    parents: tuple[str, ...]
    stop_after: StopAfter
    stages: Mapping[str, Any]
    ablations: Ablations = field(default_factory=Ablations)
    methods: Methods = field(default_factory=Methods)
    merged: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    lent_cams: str | None = None

    @property
    def classifier_run(self) -> str:
        """The run whose training makes the classifier that this one's CAMs come from."""
        lender: str | None = self.stages["export"].model_from
        return self.name if lender is None else lender

    @property
    def labels_run(self) -> str | None:
        """The run whose segmentation model predicts what this one's learns from; None: none."""
        if self.stages["segmentation"].labels != "predicted":
            return None
        lender: str | None = self.stages["self_labels"].model_from
        return lender

    @property
    def has_cams(self) -> bool:
        """Whether it makes CAMs, which masks and another run's predictions do without.

        A row of a table that ends with the CAMs is there for them, whatever the run learns from.
        """
        if "/" in self.name and self.stop_after == "cam":
            return True
        return self.stages["segmentation"].labels not in ("ground_truth", "predicted")

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
    """Return the mapping called `name` of values whose types were checked; it may be left empty."""
    found: Mapping[str, Any] = values.get(name) or {}
    return found


def check_name(name: str, spec: Mapping[str, Any], specs: Mapping[str, Any]) -> None:
    """Check the name of a run, and that it extends one.

    Raises:
        UserError: It is no name, or there is no such run.
    """
    if not is_name(name):
        raise UserError(
            f"'{name}' is no name for a run",
            where=f"runs.{name}",
            expected=EXPECTED,
        )
    parent = spec.get("extends")
    if parent is not None and parent not in specs:
        raise unknown_key(parent, specs, where=f"runs.{name}.extends", kind="run")


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
        specs: What `runs:` says of all runs, its types checked.
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
    keys = {key: value for key, value in merged.items() if key in RunHeader.model_fields}
    header = parse(RunHeader, keys, where=f"runs.{name}")
    if header.root not in roots:
        raise unknown_key(header.root, roots, where=f"runs.{name}.root", kind="root")
    layers = {stage: merge(section(defaults, stage), section(merged, stage)) for stage in STAGES}
    return Run(
        name=name,
        root=header.root,
        parents=tuple(line[1:]),
        stop_after=header.stop_after,
        stages={
            stage: _settings(name, stage, layers[stage], section(specs[name], stage))
            for stage in STAGES
        },
        ablations=_ablations(merge(ablations, section(merged, "ablations")), name, specs),
        methods=_methods(section(merged, "methods"), name, specs),
        merged=layers,
    )


def _settings(name: str, stage: str, merged: Mapping[str, Any], own: Mapping[str, Any]) -> Settings:
    """Return a run's settings of a stage, without what has no effect."""
    kind, where = stage_kind(stage), f"runs.{name}.{stage}"
    return parse_kind(kind, used(kind, merged, own, where=where), where=where)


def _ablations(values: Mapping[str, Any], name: str, specs: Mapping[str, Any]) -> Ablations:
    place = f"runs.{name}.ablations"
    ablations = read_ablations(values, where=place)
    _check_rows(ablations.variants, specs, f"{place}.variants")
    return ablations


def _methods(values: Mapping[str, Any], name: str, specs: Mapping[str, Any]) -> Methods:
    place = f"runs.{name}.methods"
    found = read_methods(values, where=place)
    _check_rows(found.rows, specs, f"{place}.rows")
    return found


def _check_rows(
    rows: Mapping[str, Mapping[str, Any] | str], specs: Mapping[str, Any], place: str
) -> None:
    """Check that rows which name a run name one."""
    for row, changes in rows.items():
        if isinstance(changes, str) and changes not in specs:
            raise unknown_key(changes, specs, where=f"{place}.{row}", kind="run")


def child_run(run: Run, row: str) -> Run:
    """Return the run of one ablation row: `run` with a few settings changed, up to the CAMs."""
    name = f"{run.name}{INFIX}{row}"
    if run.classifier_run != run.name:
        raise UserError(
            f"run '{run.name}' trains no classifier, as its CAMs are of '{run.classifier_run}'",
            where=name,
            expected="a run that trains one: ablations change how",
            fix=f"ask for the table of '{run.classifier_run}'",
        )
    changes = run.ablations.changes(row)
    if isinstance(changes, str):
        raise UserError(f"'{row}' is the run '{changes}'", where=name, expected=f"'{changes}'")
    stages = _changed(run, name, changes, where=f"runs.{run.name}.ablations")
    parents = (run.name, *run.parents)
    return Run(name=name, root=run.root, parents=parents, stop_after="cam", stages=stages)


def method_run(run: Run, row: str, seed: int, runs: Mapping[str, Run]) -> Run:
    """Return the run of one row and one seed of a comparison of methods.

    Args:
        run: Whose comparison it is.
        row: The row.
        seed: Of all its stages that draw anything.
        runs: All runs, one of which the row may be.
    """
    name, changes = f"{run.name}{comparison.INFIX}{comparison.child_name(row, seed)}", {}
    base, found = run, run.methods.rows[row]
    if isinstance(found, str):
        base = runs[found]
    else:
        changes = dict(found)
    stages = _changed(base, name, changes, where=f"runs.{run.name}.methods")
    for stage, settings in stages.items():
        if "seed" in type(settings).model_fields:
            stages[stage] = replace(settings, seed=seed)
    parents, stop_after = (base.name, *base.parents), run.methods.stop_after
    return Run(name=name, root=base.root, parents=parents, stop_after=stop_after, stages=stages)


def with_classifier_of(run: Run, lender: Run) -> Run:
    """Return a run that takes its classifier from `lender` instead of from another run."""
    export = replace(run.stages["export"], model_from=lender.name)
    return dataclasses.replace(run, stages={**run.stages, "export": export})


def _changed(
    run: Run, name: str, changes: Mapping[str, Mapping[str, Any]], *, where: str
) -> dict[str, Any]:
    """Return the stages of a run with a few settings changed.

    Args:
        run: The run.
        name: That of the child, for errors.
        changes: Changed settings by stage.
        where: Where the changes stand.
    """
    stages = dict(run.stages)
    for stage, settings in changes.items():
        kind, place = stage_kind(stage), f"runs.{name}.{stage}"
        try:
            merged = used(kind, merge(run.merged[stage], settings), settings, where=place)
        except UserError as error:
            raise UserError(
                error.found,
                where=place,
                expected=error.expected,
                fix="ask for the table of a run that has this setting, or take the row out of "
                f"{where}",
            ) from None
        stages[stage] = parse_kind(kind, merged, where=place)
    return stages
