"""Plug-ins: Python files outside the package that register methods, formats or networks."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterable
from pathlib import Path

from wsss.errors import UserError

VARIABLE = "WSSS_PLUGINS"
"""Environment variable with the plug-ins of a stage's command, joined by `os.pathsep`."""


def load_plugins(paths: Iterable[Path]) -> None:
    """Import files as modules of their own names; their folders become places to import from.

    Worker processes find them by the same names.

    Raises:
        UserError: A file is not there, cannot be imported, or has the name of another module.
    """
    for path in paths:
        path = Path(os.path.realpath(path.expanduser()))
        if not path.is_file() or path.suffix != ".py":
            raise UserError(
                "this plug-in is not there",
                where=path,
                expected="a Python file",
                fix="correct `plugins:` in config.yaml or config.local.yaml",
            )
        if (folder := str(path.parent)) not in sys.path:
            sys.path.append(folder)
        try:
            module = importlib.import_module(path.stem)
        except UserError:
            raise
        except (Exception, SystemExit) as error:
            raise UserError(
                f"this plug-in cannot be imported: {type(error).__name__}: {error}", where=path
            ) from error
        if Path(module.__file__ or "").resolve() != path:
            raise UserError(
                f"there is another module '{path.stem}', {module.__file__ or 'built in'}",
                where=path,
                fix="give the plug-in another name",
            )


def load_named_plugins() -> None:
    """Import the plug-ins that the environment names, in a stage's own process."""
    load_plugins(map(Path, filter(None, os.environ.get(VARIABLE, "").split(os.pathsep))))
