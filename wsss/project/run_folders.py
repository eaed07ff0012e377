"""What people name a run by: its name or its folder, a row of its tables as well."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from wsss.errors import UserError
from wsss.project.names import is_name

if TYPE_CHECKING:
    from wsss.project.config import ProjectConfig
    from wsss.project.runs import Run

RESULTS = Path("results")
TABLES = ("ablation", "methods")
"""Folders of a run that hold the runs which are the rows of its tables."""

# What shows that a folder is a run's, or has a model in it.
_TRACES = ("plan.json", "config", "index.csv", "miou.csv", "cams.h5", "segmentation")
_MODEL = "model.safetensors"


def find_run(given: Path) -> Path:
    """Return the folder of a run that is named by its folder, or by its name.

    Args:
        given: `results/<run>`, `<run>`, or either of a row: `<run>/ablation/<row>`. What is
            neither comes back as it is.
    """
    inside = RESULTS / given
    if given.is_absolute() or given.is_file() or has_begun(given) or (given / _MODEL).is_file():
        return given
    named = not given.exists() and bool(given.parts) and is_name(given.parts[0])
    return inside if has_begun(inside) or (named and given.parts[0] != RESULTS.name) else given


def has_begun(folder: Path) -> bool:
    """Say whether something of a run is in a folder."""
    return any((folder / name).exists() for name in _TRACES)


def run_name(folder: Path) -> str:
    """Return the name of the run whose folder this is: `mine`, or `mine/ablation/<row>`."""
    # Not resolved: a link to another disk has the run's name.
    parts = folder.absolute().parts
    return "/".join(parts[-3:] if parts[-2:-1] and parts[-2] in TABLES else parts[-1:])


def results_of(folder: Path) -> Path:
    """Return the folder that all runs lie in, by the folder of one of them."""
    return folder.absolute().parents[run_name(folder).count("/")]


def name_given(text: str) -> str:
    """Return the name of a run that is named by it, or by its folder: `results/mine/`."""
    path = Path(text)
    for results in (RESULTS, RESULTS.absolute()):
        if path != results and path.is_relative_to(results):
            return path.relative_to(results).as_posix()
    return text.rstrip("/")


def lacking(
    folder: Path,
    found: str,
    *,
    expected: str | None = None,
    target: str = "done",
    never: Callable[[Run], str | None] = lambda run: None,
) -> UserError:
    """Return the error that something of a run is not there, with what makes it, if anything does.

    Args:
        folder: The run's folder, as `find_run` gave it.
        found: What is missing.
        expected: What should be there.
        target: The file that is made with it, in the run's folder.
        never: Says why a run does not make it at all; None: it does.
    """
    # `wsss status`, which is asked often, goes without all that this loads.
    from wsss.project.config import CONFIG_FILE, load_config

    elsewhere = f"go to the folder with the {CONFIG_FILE} that has this run, and name it there"
    missing = UserError(found, where=folder, expected=expected, fix=elsewhere)
    if not CONFIG_FILE.is_file():
        return missing
    config, name = load_config(), run_name(folder)
    try:
        run = config.run(name if is_here(folder) else str(folder))
        same = None if has_begun(folder) else _same_run(config, name)
        if same is not None:
            raise UserError(f"this row is the run '{same}' itself", expected=str(RESULTS / same))
    except UserError as error:
        if has_begun(folder):
            return missing
        known = error.expected or ""
        known = known if "/" in name else f"results/RUN or RUN, where RUN is {known}"
        guess = error.fix if (error.fix or "").startswith("did you mean") else None
        found = f"no run is here: {error.found}"
        return UserError(found, where=folder, expected=known, fix=guess)
    reason = never(run)
    if reason is not None:
        found = f"{found.removesuffix(' yet')}, and run '{name}' makes none: {reason}"
        fix = f"name another run, or change this one; its settings:  wsss config show {name}"
        return UserError(found, where=folder, expected=expected, fix=fix)
    fix = f"make it:  snakemake --cores all {RESULTS / name / target}"
    return UserError(found, where=folder, expected=expected, fix=fix)


def _same_run(config: ProjectConfig, name: str) -> str | None:
    """Return the run that a row of a table is, where it is none of its own."""
    parent, _, row = name.partition("/")
    table, _, row = row.partition("/")
    if table == "methods":
        row, seed = config.run(parent).methods.split(row)
        found = config.methods(parent)[row][seed]
    elif table == "ablation":
        found = {**config.ablation(parent, "variants"), **config.ablation(parent, "q")}[row]
    return found if table and found != name else None


def is_here(folder: Path) -> bool:
    """Say whether a run of its name would have this folder, in the working folder."""
    return folder.absolute() == (RESULTS / run_name(folder)).absolute()


def no_segmentation(run: Run) -> str | None:
    """Say why a run trains no segmentation model; None: it does."""
    return None if run.stop_after == "segmentation" else f"it stops after '{run.stop_after}'"


def no_cams(run: Run) -> str | None:
    """Say why a run has no CAMs; None: it has."""
    kind = run.stages["segmentation"].labels
    learnt = f"it learns from labels that are '{kind}' (segmentation.labels)"
    return None if run.has_cams else learnt


def no_pseudo_labels(run: Run) -> str | None:
    """Say why a run makes no pseudo-labels; None: it does."""
    return "it stops after 'cam'" if run.stop_after == "cam" else no_cams(run)


def no_self_labels(run: Run) -> str | None:
    """Say why a run has no labels that another run's model predicts; None: it has."""
    if run.stages["segmentation"].labels == "predicted":
        return "it stops after 'cam'" if run.stop_after == "cam" else None
    return "it learns from no other run's predictions (segmentation.labels is not 'predicted')"
