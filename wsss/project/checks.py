"""Checks of a resolved configuration that take more than one stage or more than one run."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from wsss.errors import UserError
from wsss.runtime.settings import unknown_key


def check_refinement(stages: Mapping[str, Mapping[str, Any]]) -> None:
    """Check that the CAMs a run wants refined have a transformer's attention to be refined with.

    Said now, rather than after the hours that training the CAMs takes.

    Args:
        stages: Run -> stage -> settings.

    Raises:
        UserError: `refine_from` names no run, or a run without a transformer; or it is missing.
    """
    for name, run in stages.items():
        place = f"runs.{name}.export.refine_from"
        lender = run["export"].refine_from
        if lender is not None and lender not in stages:
            raise unknown_key(lender, stages, where=place, kind="run")
        cam = stages[lender or name]["cam"]
        if run["export"].refine != "none" and not cam.uses_transformer:
            whose = f"run '{lender}'" if lender else "this run"
            raise UserError(
                f"the CAM method of {whose}, '{cam.method}', has no attention between patches",
                where=place,
                expected="a run with cam.method mct or acr-vit",
                fix="name such a run, or set export.refine to none",
            )


def check_change(name: str, *, before: Any, after: Any) -> None:
    """Check that what an ablation changes is not of a reconstructor that there is none of.

    Args:
        name: The changed run.
        before: CAM settings of the run it is a child of.
        after: Its own.

    Raises:
        UserError: Only the reconstructor's settings differ, and the CAM method has none.
    """
    if after.method.startswith("acr") or after.acr == before.acr:
        return
    if dataclasses.replace(after, acr=before.acr) == before:
        raise UserError(
            f"the CAM method '{after.method}' has no reconstructor, whose settings this row of "
            "the ablation changes",
            where=name,
            expected="a run with cam.method acr or acr-vit",
            fix="ask for the table of such a run, or take the row out of this run's ablations",
        )
