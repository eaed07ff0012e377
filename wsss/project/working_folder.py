"""A working folder from the installed package: Snakefile, configuration, rules, profiles."""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path

from wsss.errors import UserError
from wsss.files import atomic_directory

PARTS = ("Snakefile", "config.yaml", "workflow", "profiles", "envs")


def source_folder() -> Path:
    """Return where the files of a working folder lie: in the package, or beside it in a checkout.

    Raises:
        UserError: They are in neither.
    """
    inside = Path(__file__).parent / "files"
    beside = Path(__file__).parent.parent.parent
    for folder in (inside, beside):
        if all((folder / name).exists() for name in PARTS):
            return folder
    raise UserError(
        "this installation lacks the workflow", where=inside, fix="install wsss from its wheel"
    )


def make_working_folder(folder: Path) -> None:
    """Make a folder to work in; one that is there must be empty.

    Raises:
        UserError: Something is in it already.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        is_one = all((folder / name).exists() for name in PARTS)
        go_on = f"it is a working folder:  cd {shlex.quote(str(folder))}  and leave out --project"
        raise UserError(
            "there is something here already",
            where=folder,
            expected="a folder that does not exist yet, or an empty one",
            fix=go_on if is_one else None,
        )
    source = source_folder()
    with atomic_directory(folder) as temporary:
        for name in PARTS:
            if (source / name).is_dir():
                ignored = shutil.ignore_patterns("__pycache__")
                shutil.copytree(source / name, temporary / name, ignore=ignored)
            else:
                shutil.copy(source / name, temporary / name)
