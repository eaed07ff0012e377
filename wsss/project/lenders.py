"""Runs that use what another run makes: its classifier, its attention, CAMs, predictions."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import Any

from wsss.cam.methods.registry import METHODS
from wsss.data.formats.registry import FORMATS
from wsss.errors import UserError
from wsss.project.methods import INFIX as METHODS_INFIX
from wsss.project.runs import Run, child_run, with_classifier_of
from wsss.runtime.settings import unknown_key


def with_lent_classifiers(
    runs: Mapping[str, Run], specs: Mapping[str, Mapping[str, Any]]
) -> dict[str, Run]:
    """Return the runs, those that export with another run's classifier with its settings.

    Args:
        runs: All runs.
        specs: What `runs:` says of each that is to be looked at; the others stay as they are.

    Raises:
        UserError: `export.model_from` names no run, or one that trains no classifier; or the run
            sets how to train one.
    """
    found = dict(runs)
    for name in specs:
        run = runs[name]
        lender = run.stages["export"].model_from
        if lender is not None:
            place = f"runs.{name}.export.model_from"
            _check_classifier(name, lender, runs, where=place)
            if specs[name].get("cam"):
                raise UserError(
                    f"'cam' has no effect: run '{name}' trains no classifier, as its CAMs are of "
                    f"'{lender}'",
                    where=f"runs.{name}.cam",
                    fix="take it out, or set export.model_from to null",
                )
            found[name] = replace(run, stages={**run.stages, "cam": runs[lender].stages["cam"]})
    return found


def _check_classifier(name: str, lender: str, runs: Mapping[str, Run], *, where: str) -> None:
    if lender not in runs:
        raise unknown_key(lender, runs, where=where, kind="run")
    stages = runs[lender].stages
    method = METHODS.get(stages["cam"].method, where=where)
    reason = None
    if lender == name:
        reason = "which is this run itself"
    elif stages["export"].model_from is not None:
        reason = f"which takes its classifier from '{stages['export'].model_from}'"
    elif method.task is None:
        reason = f"whose CAM method, '{method.name}', trains none"
    elif not runs[lender].has_cams:
        reason = f"which has no CAMs: its labels are '{stages['segmentation'].labels}'"
    if reason is not None:
        raise UserError(
            f"the classifier is to come from run '{lender}', {reason}",
            where=where,
            expected="another run that trains its own, or null",
        )


def ablation_run(run: Run, row: str, runs: Mapping[str, Run], roots: Collection[str]) -> Run:
    """Return the run of a row of a run's ablations.

    Where the row changes nothing that trains, it takes the run's classifier; where it changes
    nothing that makes the CAMs either, these.

    Args:
        run: Whose ablations they are.
        row: The row.
        runs: All runs of `runs:`.
        roots: Keys of the folders with data.

    Raises:
        UserError: There is no such row, or it is another run; see `checked_child`, too.
    """
    alone, changes = child_run(run, row), run.ablations.changes(row)
    child = checked_child(alone, {} if isinstance(changes, str) else changes, runs, roots)
    changed = {stage for stage in child.stages if child.stages[stage] != run.stages[stage]}
    if not changed or not run.has_cams or "cam" in changed:
        return child
    if changed.isdisjoint(("lpcam", "export")):
        child = replace(child, lent_cams=run.name)
    trains = METHODS.get(run.stages["cam"].method, where=f"runs.{run.name}.cam").task is not None
    lends = trains and child.classifier_run == child.name
    return with_classifier_of(child, run) if lends else child


def lending_row(child: Run, run: Run, runs: Mapping[str, Run]) -> str | None:
    """Return the row of a comparison that lends its classifier to another row, seed by seed.

    With one training behind all of its seeds, a row would have no spread that means anything.

    Args:
        child: One row and seed of the comparison.
        run: Whose comparison it is.
        runs: All runs of `runs:`.

    Returns:
        The row that is the run whose classifier the child takes. None: it trains its own, or that
        run has the child's seed anyway.

    Raises:
        UserError: No row is that run.
    """
    lender = runs.get(child.stages["export"].model_from or "")
    row, seed = run.methods.split(child.name.removeprefix(run.name + METHODS_INFIX))
    if lender is None or getattr(lender.stages["cam"], "seed", seed) == seed:
        return None
    for other, changes in run.methods.rows.items():
        if changes == lender.name or (lender.name == run.name and changes == {}):
            return other
    raise UserError(
        f"all seeds of '{row}' would have one classifier, which run '{lender.name}' trains with "
        f"seed {lender.stages['cam'].seed}",
        where=f"runs.{run.name}.methods.rows.{row}",
        expected=f"a row that is '{lender.name}', whose training with each seed '{row}' then takes",
        fix=f"add this row:  {lender.name}: {lender.name}",
    )


def check_lenders(
    runs: Mapping[str, Run], specs: Mapping[str, Mapping[str, Any]], roots: Collection[str]
) -> None:
    """Check that every run that another one names has what it is named for.

    Said now, rather than after the hours that training takes.

    Args:
        runs: All runs.
        specs: What `runs:` says of each that is to be checked.
        roots: Keys of the folders with data.

    Raises:
        UserError: There is no such run, it makes no such thing, or runs wait for each other; or a
            run names one to no effect, or stops before there is anything to score.
    """
    _check_refinement(runs, specs)
    _check_anchors(runs, specs)
    _check_imports(runs, specs, roots)
    _check_teachers(runs, specs)
    for name in specs:
        _check_classes(runs[name], runs)
        _check_end(runs[name])


def _check_classes(run: Run, runs: Mapping[str, Run]) -> None:
    """Check that a run borrows no network of other classes, as far as their formats tell.

    What tells more is in the model files: the stages look there.

    Raises:
        UserError: Both formats say which classes there are, and they are not the same formats.
    """
    lent = {
        "export.model_from": run.stages["export"].model_from,
        "cam.anchor_from": run.stages["cam"].anchor_run,
        "self_labels.model_from": run.labels_run,
    }
    for key, lender in lent.items():
        if lender is None:
            continue
        formats = [each.stages["index"].format for each in (run, runs[lender])]
        fixed = [FORMATS.get(name, where=f"runs.{run.name}").fixed_classes for name in formats]
        if all(fixed) and formats[0] != formats[1]:
            raise UserError(
                f"run '{lender}' is on other classes: those of the data format '{formats[1]}'",
                where=f"runs.{run.name}.{key}",
                expected=f"a run on those of '{formats[0]}', as '{run.name}' is",
            )


def _check_end(run: Run) -> None:
    """Check that a run which learns from masks goes as far as that.

    Raises:
        UserError: It stops before, and would have an empty table.
    """
    is_truth = run.stages["segmentation"].labels == "ground_truth"
    if is_truth and not run.has_cams and run.stop_after != "segmentation":
        raise UserError(
            f"run '{run.name}' stops after {run.stop_after}, and makes none: its labels are "
            "ground_truth",
            where=f"runs.{run.name}.stop_after",
            expected="segmentation, the only thing that is scored of it"
            + (", or cam, which the rows of a table have" if "/" in run.name else ""),
        )


def checked_child(
    child: Run, changes: Mapping[str, Any], runs: Mapping[str, Run], roots: Collection[str]
) -> Run:
    """Return the run of a row of a table, with a lent classifier's settings where it has one.

    It may borrow what the run that it is a row of does not, and is checked as that is.

    Args:
        child: The run.
        changes: What its row says.
        runs: All runs of `runs:`.
        roots: Keys of the folders with data.

    Raises:
        UserError: See `with_lent_classifiers` and `check_lenders`.
    """
    specs = {child.name: changes}
    known = with_lent_classifiers({**runs, child.name: child}, specs)
    check_lenders(known, specs, roots)
    return known[child.name]


def _check_refinement(runs: Mapping[str, Run], names: Collection[str]) -> None:
    """Check that the CAMs a run wants refined have a transformer's attention to be refined with.

    Said now, rather than after the hours that training the CAMs takes.

    Raises:
        UserError: `refine_from` names no run, or a run without a transformer; or it is missing.
    """
    for name in names:
        run = runs[name]
        export, place = run.stages["export"], f"runs.{name}.export.refine_from"
        lender = export.refine_from
        if lender is not None and lender not in runs:
            raise unknown_key(lender, runs, where=place, kind="run")
        own = METHODS.get(run.stages["cam"].method, where=f"runs.{name}.cam.method")
        if export.refine != "none" and own.source is not None:
            raise UserError(
                f"export.refine is '{export.refine}', and the maps of cam.method '{own.name}' are "
                "taken as they are",
                where=f"runs.{name}.export.refine",
                expected="none",
            )
        method = METHODS.get(runs[lender or name].stages["cam"].method, where=place)
        if export.refine == "lpcam" and not method.has_features:
            able = [entry.name for entry in METHODS.entries().values() if entry.has_features]
            raise UserError(
                f"the CAM method of this run, '{method.name}', has no features that its class "
                "weights are multiplied with, which lpcam clusters",
                where=f"runs.{name}.export.refine",
                expected=f"none, or cam.method {' or '.join(able)}",
            )
        if export.refine == "patch-attention" and not method.has_attention:
            whose = f"run '{lender}'" if lender else "this run"
            able = [entry.name for entry in METHODS.entries().values() if entry.has_attention]
            raise UserError(
                f"the CAM method of {whose}, '{method.name}', has no attention between patches",
                where=place,
                expected=f"a run with cam.method {' or '.join(able)}",
                fix="name such a run, or set export.refine to none",
            )


def _check_anchors(runs: Mapping[str, Run], names: Collection[str]) -> None:
    """Check that a run whose training looks at another run's classifier does not wait for itself.

    Raises:
        UserError: `anchor_from` names no run, or the runs wait for each other.
    """
    for name in names:
        place = f"runs.{name}.cam.anchor_from"
        line = _line(
            name,
            runs,
            lambda run: run.stages["cam"].anchor_run,
            where=place,
            what="take their frozen classifier",
        )
        for lender in line[1:]:
            method = METHODS.get(runs[lender].stages["cam"].method, where=place)
            if method.task is None:
                raise UserError(
                    f"the CAM method of run '{lender}', '{method.name}', trains no classifier",
                    where=place,
                    expected="a run that trains one",
                )


def _check_imports(runs: Mapping[str, Run], names: Collection[str], roots: Collection[str]) -> None:
    """Check that a run whose maps come from elsewhere has a folder, and does not wait for itself.

    Raises:
        UserError: `seeds` names no root, `cams_from` no run or one on other data, or runs wait for
            each other.
    """
    for name in names:
        run = runs[name]
        key = run.stages["cam"].seeds_root
        if key is not None and key not in roots:
            raise unknown_key(key, roots, where=f"runs.{name}.cam.seeds", kind="root")
        place = f"runs.{name}.cam.cams_from"
        line = _line(
            name,
            runs,
            lambda run: run.stages["cam"].cams_run,
            where=place,
            what="take their CAMs",
        )
        for lender in line[1:]:
            if runs[lender].root != run.root:
                raise UserError(
                    f"run '{lender}' is on the data set '{runs[lender].root}'",
                    where=place,
                    expected=f"a run on '{run.root}', whose pictures the masks are of",
                )


def _check_teachers(runs: Mapping[str, Run], specs: Mapping[str, Mapping[str, Any]]) -> None:
    """Check that a run that learns from predictions says whose, and does not wait for itself.

    Raises:
        UserError: `self_labels.model_from` is missing or names no run, or one that trains no
            segmentation, or the runs wait for each other; or it has no effect, or the run stops
            before it learns.
    """
    for name in specs:
        run = runs[name]
        place, kind = f"runs.{name}.self_labels.model_from", run.stages["segmentation"].labels
        if kind != "predicted":
            own = specs[name].get("self_labels") or {}
            if own.get("model_from") is not None:
                raise UserError(
                    f"'model_from' has no effect: segmentation.labels of run '{name}' is '{kind}'",
                    where=place,
                    fix="set segmentation.labels to predicted, or take it out",
                )
            continue
        if run.stop_after == "cam" and "/" in name:
            continue  # a row of a table that ends with the CAMs, which its labels do not touch
        if run.labels_run is None:
            raise UserError(
                f"segmentation.labels of run '{name}' is 'predicted', and nothing says by which "
                "run's model",
                where=place,
                expected="the name of another run",
                fix=f"set it to a run that has a segmentation, such as that which '{name}' extends",
            )
        if run.stop_after == "cam":
            raise UserError(
                f"run '{name}' stops after the CAMs, and has none: its labels are predicted",
                where=f"runs.{name}.stop_after",
                expected="pseudo_label (which are the predicted labels) or segmentation",
            )
        line = _line(name, runs, lambda run: run.labels_run, where=place, what="take their labels")
        lender = runs[line[1]]
        if lender.stop_after != "segmentation":
            raise UserError(
                f"run '{lender.name}' stops after {lender.stop_after} and trains no segmentation",
                where=place,
                expected="a run that trains one",
            )


def _line(
    name: str,
    runs: Mapping[str, Run],
    lender_of: Callable[[Run], str | None],
    *,
    where: str,
    what: str,
) -> list[str]:
    """Return a run, the run that lends to it, the one that lends to that, and so on.

    Raises:
        UserError: One of them does not exist, or the line comes back to where it was.
    """
    line = [name]
    while (lender := lender_of(runs[line[-1]])) is not None:
        if lender not in runs:
            raise unknown_key(lender, runs, where=where, kind="run")
        if lender in line:
            raise UserError(
                f"the runs {' -> '.join([*line, lender])} {what} from each other in a circle",
                where=where,
                expected="a run that is trained before",
            )
        line.append(lender)
    return line
