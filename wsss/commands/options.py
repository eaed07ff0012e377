"""Options that several subcommands share."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wsss.commands.parameters import add, fields_of, read_given

if TYPE_CHECKING:
    from wsss.runtime.compute import InferenceCompute

_PATHS = {
    "config": "the stage's settings: results/<run>/config/<stage>.json",
    "index": "the list of images, index.csv",
    "output": "what to write",
}


def add_paths(parser: argparse.ArgumentParser, *names: str) -> None:
    """Add `--name PATH` options."""
    for name in names:
        parser.add_argument(
            f"--{name}", type=Path, required=True, metavar="PATH", help=_PATHS[name]
        )


def add_compute(parser: argparse.ArgumentParser) -> None:
    """Add the options that say how to compute; they change no result beyond rounding."""
    from wsss.runtime.compute import InferenceCompute

    group = parser.add_argument_group("this machine")
    for field in fields_of(InferenceCompute):
        add(group, field)


def compute(options: argparse.Namespace) -> InferenceCompute:
    """Return what `add_compute` read."""
    from wsss.runtime.compute import InferenceCompute

    return InferenceCompute(**read_given(options))


def read_config(section: str, path: Path) -> Any:
    """Read the settings of a section of a run.

    Raises:
        UserError: The file is not there, or something in it is wrong.
    """
    from wsss.project.file import read_stage

    return read_stage(section, path)
