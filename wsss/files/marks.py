"""The mark of a folder that wsss wrote, without which nothing of ours replaces or empties it.

A folder given as an output may hold somebody's work: a mistyped `roots:`, an `--output` that is in
use. So a stage's folder says itself that it is one, in a hidden file that names what was written
there; a folder with anything else in it is left alone.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from wsss.errors import UserError, listed
from wsss.files.temporaries import remove_leftovers

MARK = ".wsss-folder.json"
"""Name of the mark. Readers of such folders skip it."""

_NEW_MARK = f"{MARK}.tmp"
# Nobody's work: Snakemake's time stamp of a folder, and what file managers leave where they look.
_LITTER = frozenset(
    (MARK, _NEW_MARK, ".snakemake_timestamp", ".DS_Store", "Thumbs.db", "desktop.ini")
)
_SHOWN = 3


def write_mark(folder: Path, also: Sequence[str] = ()) -> None:
    """Mark a folder as written by wsss, with all that is in it now, and `also` what comes yet."""
    record = {
        "written_by": "wsss",
        "note": "This folder is replaced as a whole. Keep nothing of your own in it.",
        "files": sorted({*_content(folder), *also}),
    }
    # Renamed into place: never half of it, nor through a hard link to another folder's.
    temporary = folder / _NEW_MARK
    with temporary.open("w", encoding="utf-8") as file:
        json.dump(record, file, indent=0)
        file.write("\n")
    os.replace(temporary, folder / MARK)


def check_replaceable(path: str | os.PathLike[str]) -> None:
    """Refuse an output folder that holds what wsss did not write; nothing is touched.

    A folder that does not exist or is empty will do.

    Raises:
        UserError: It is a file, the working directory, or a folder with something of somebody
            else in it.
    """
    folder = Path(path)
    if not os.path.lexists(folder):
        return
    if not folder.is_dir():
        raise UserError(
            "this is to be a folder, and something else has that name",
            where=folder,
            expected="a folder that wsss wrote, an empty one, or none",
            fix="choose another output, or move it away; nothing was touched",
        )
    if folder.samefile(os.curdir):
        # In its place there would be another one, and the shell in one that is no more.
        raise UserError(
            "this folder would be replaced, and it is the one that you are in",
            where=folder.absolute(),
            fix="name a folder that is not there yet, or go to the one above and name it from "
            "there; nothing was touched",
        )
    written = _written(folder)
    known = set(written or ())
    others = [name for name in _content(folder) if name not in known]
    if others:
        unmarked = "" if written is not None else f" (it has no {MARK}, which wsss leaves there)"
        raise UserError(
            f"this folder would be replaced, and wsss did not write what is in it{unmarked}: "
            f"{listed(sorted(others), _SHOWN)}",
            where=folder,
            expected="a folder that wsss wrote, an empty one, or none",
            fix="choose another output (or another folder under `roots:`), or move what is in "
            "there away; nothing was touched",
        )


def check_free(path: Path) -> None:
    """Refuse to write where there is anything, be it a link to nothing.

    What starts that were killed have left beside it goes.

    Raises:
        UserError: There is something.
    """
    if os.path.lexists(path):
        raise UserError(
            "there is something here already",
            where=path,
            fix="take it away, or name another place with --output",
        )
    remove_leftovers(path, alone=False)


def check_file_replaceable(
    path: str | os.PathLike[str], is_ours: Callable[[Path], bool], what: str
) -> None:
    """Refuse to write a person's output over a file that is something else; nothing is touched.

    Args:
        path: The output; one that is not there will do.
        is_ours: Whether a file is what is written there.
        what: What that is, for the message.

    Raises:
        UserError: There is another file, or one that cannot be read.
    """
    file = Path(path)
    if os.path.lexists(file) and not is_ours(file):
        raise UserError(
            "the result would be written over a file that is no result of this command",
            where=file,
            expected=f"{what}, or no file",
            fix="choose another output, or move that file away; nothing was touched",
        )


def adopt(folder: Path, manifest: Path) -> bool:
    """Mark a folder from before there were marks if it is what its manifest says, to the byte.

    Args:
        folder: The folder.
        manifest: The SHA-256 of its files, as `wsss.provenance.write_manifest` writes it.

    Returns:
        Whether it was marked now.
    """
    if not folder.is_dir() or folder.is_symlink() or (folder / MARK).exists():
        return False
    try:
        lines = manifest.read_text(encoding="utf-8").splitlines()
        digests = {name: digest for digest, _, name in (line.partition("  ") for line in lines)}
        files = set(_content(folder))
        if not files or files != set(digests):
            return False
        for name, digest in digests.items():
            with open(folder / name, "rb") as handle:
                if hashlib.file_digest(handle, "sha256").hexdigest() != digest:
                    return False
        write_mark(folder)
    except (OSError, UnicodeError):
        return False  # It stays what it is, and is refused where it would be replaced.
    return True


def _content(folder: Path) -> Iterator[str]:
    """Yield what is in a folder, relative to it: files, links, and folders that are empty."""

    def fail(error: OSError) -> None:
        raise UserError(
            f"cannot look into this folder: {error.strerror}",
            where=error.filename,
            fix="choose another output; nothing was touched",
        ) from error

    for place, folders, files in os.walk(folder, onerror=fail):
        inside = [name for name in files if name not in _LITTER]
        # A link to a folder is not followed, and is a thing of its own.
        inside += [name for name in folders if Path(place, name).is_symlink()]
        if not (folders or files) and Path(place) != folder:
            inside.append("")
        for name in inside:
            yield Path(place, name).relative_to(folder).as_posix()


def _written(folder: Path) -> list[str] | None:
    """Return what a mark says was written; None: there is none of ours."""
    try:
        record = json.loads((folder / MARK).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(record, dict) or record.get("written_by") != "wsss":
        return None
    files = record.get("files")
    if not isinstance(files, list) or not all(isinstance(name, str) for name in files):
        return None
    return files
