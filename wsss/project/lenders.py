"""Runs that use what another run trains: its attention, its frozen classifier, its predictions."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from wsss.cam.methods.registry import METHODS
from wsss.errors import UserError
from wsss.project.runs import Run
from wsss.runtime.settings import unknown_key


def check_lenders(runs: Mapping[str, Run]) -> None:
    """Check that every run that another one names has what it is named for.

    Said now, rather than after the hours that training takes.

    Raises:
        UserError: There is no such run, it makes no such thing, or runs wait for each other.
    """
    _check_refinement(runs)
    _check_anchors(runs)
    _check_teachers(runs)


def _check_refinement(runs: Mapping[str, Run]) -> None:
    """Check that the CAMs a run wants refined have a transformer's attention to be refined with.

    Said now, rather than after the hours that training the CAMs takes.

    Raises:
        UserError: `refine_from` names no run, or a run without a transformer; or it is missing.
    """
    for name, run in runs.items():
        export, place = run.stages["export"], f"runs.{name}.export.refine_from"
        lender = export.refine_from
        if lender is not None and lender not in runs:
            raise unknown_key(lender, runs, where=place, kind="run")
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


def _check_anchors(runs: Mapping[str, Run]) -> None:
    """Check that a run whose training looks at another run's classifier does not wait for itself.

    Raises:
        UserError: `anchor_from` names no run, or the runs wait for each other.
    """
    for name in runs:
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


def _check_teachers(runs: Mapping[str, Run]) -> None:
    """Check that a run that learns from predictions says whose, and does not wait for itself.

    Raises:
        UserError: `self_labels.model_from` is missing or names no run, or one that trains no
            segmentation, or the runs wait for each other; or the run stops before it learns.
    """
    for name, run in runs.items():
        if run.stages["segmentation"].labels != "predicted":
            continue
        place = f"runs.{name}.self_labels.model_from"
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
