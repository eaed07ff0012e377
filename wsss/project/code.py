"""The code that a stage of a run runs: what it imports, and what the run's settings choose."""

from __future__ import annotations

from wsss.project.config import ProjectConfig
from wsss.provenance import closure_hash
from wsss.runtime.registry import chosen_modules
from wsss.stages import Stage


def code_hash(stage: Stage, config: ProjectConfig, run: str | None = None) -> str:
    """Return the hash of the code that decides the results of a stage.

    Args:
        stage: The stage.
        config: The configuration.
        run: Whose stage it is; None for a stage that belongs to no run.

    Raises:
        UserError: There is no such run.
    """
    modules: set[str] = set()
    if run is not None:
        stages = config.run(run).stages
        for section in stage.chosen_by:
            modules.update(chosen_modules(stages[section]))
        lender = stages["export"].refine_from
        if stage.name == "export" and lender is not None:
            modules.update(chosen_modules(config.run(lender).stages["cam"]))
        teacher = config.run(run).labels_run
        if stage.name == "self_labels" and teacher is not None:
            modules.update(chosen_modules(config.run(teacher).stages["segmentation"]))
        frozen = stages["cam"].anchor_run
        if stage.name == "cam" and frozen is not None:
            modules.update(chosen_modules(config.run(frozen).stages["cam"]))
    return closure_hash(stage.module, *sorted(modules))
