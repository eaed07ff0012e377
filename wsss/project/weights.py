"""Which networks of a run start from weights, and where these come from: files, packages, hubs."""

from __future__ import annotations

from importlib.util import find_spec

from wsss.irn.label_methods import LABEL_METHODS
from wsss.models.config import BY_NAME, PACKAGES, networks_with_files, packaged
from wsss.project.runs import Run
from wsss.runtime.settings import Settings


def weighted_stages(run: Run) -> list[str]:
    """Return the stages of a run that can start from weights."""
    stages = ["cam", "irn", "segmentation"]
    stages = stages[: ("cam", "pseudo_label", "segmentation").index(run.stop_after) + 1]
    method = run.stages["pseudo_labels"].method
    trains_irn = LABEL_METHODS.get(method, where="pseudo_labels.method").needs_model
    if not run.has_cams:
        stages = stages[2:]
    skipped = [] if trains_irn else ["irn"]
    skipped += [] if run.classifier_run == run.name else ["cam"]
    return [stage for stage in stages if stage not in skipped]


def weights_of(run: Run) -> list[str]:
    """Return the keys of the weight files that the stages of a run start from."""
    found = [key for stage in weighted_stages(run) for _, _, key in weights_keys(run.stages[stage])]
    return list(dict.fromkeys(found))


def weights_keys(settings: Settings) -> list[tuple[str, str, str]]:
    """Return (place, option, key) of each weight file that a stage's settings name.

    A settings class with weights of its own says by `weights_option` which option of the command
    takes the file; a backbone's is `weights-file`. Packaged and random weights, and those of a
    hub, need none.
    """
    return [
        (f"{place}.weights", option, key) for place, option, key, _ in networks_with_files(settings)
    ]


def check_packages(settings: Settings, *, where: str) -> None:
    """Check that the packages of weights that a stage's settings name are installed.

    Before the stages that come first, rather than after their hours; nothing is imported.

    Raises:
        UserError: One is not.
    """
    for place, network in packaged(settings):
        package = PACKAGES[network.name]
        if find_spec(package.module) is None:
            raise package.missing(network.name, where=f"{where}.{place}.weights")


def named_weights(run: Run) -> dict[str, Settings]:
    """Return the networks of a run whose weights come by name, by their places in the settings."""
    waiting = [(stage, run.stages[stage]) for stage in weighted_stages(run)]
    found: dict[str, Settings] = {}
    while waiting:
        place, settings = waiting.pop(0)
        if getattr(settings, "weights", None) in BY_NAME:
            found[place] = settings
        inner = [(name, value) for name, value in settings if isinstance(value, Settings)]
        waiting = [(f"{place}.{name}", value) for name, value in inner] + waiting
    return found
