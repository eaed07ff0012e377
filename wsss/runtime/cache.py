"""What was worked out once and is kept on this machine, by a key of all that decides it.

Nothing depends on it: an entry that is not there is worked out again, to the same. It lies in
`$WSSS_CACHE`, else in `wsss` below the system's folder for such; deleting it costs time alone.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from wsss.errors import UserError
from wsss.files import atomic_file

VARIABLE = "WSSS_CACHE"
_told: set[str] = set()


def cache_folder() -> Path:
    """Return where entries lie; it need not exist."""
    try:
        named = os.environ.get(VARIABLE)
        if named:
            return Path(named).expanduser()
        system = os.environ.get("XDG_CACHE_HOME")
        return (Path(system) if system else Path.home() / ".cache") / "wsss"
    except RuntimeError:
        # A user without a home, as in containers: below a file nothing can be kept, nor found.
        return Path(os.devnull) / "wsss"


def entry(kind: str, key: str) -> Path:
    """Return the file of an entry, which is there if it was kept.

    Args:
        kind: What sort of thing it is, such as `texts`.
        key: A hash of all that decides it, as hexadecimal digits.
    """
    return cache_folder() / kind / key


def keep(kind: str, key: str, content: bytes, *, quietly: bool = False) -> None:
    """Keep an entry, whole or not at all; where that fails, say so and go on without.

    Args:
        kind: See `entry`.
        key: See `entry`.
        content: The entry.
        quietly: Say nothing: for what costs no more than a moment to work out again.
    """
    path = entry(kind, key)
    try:
        with atomic_file(path) as temporary:
            temporary.write_bytes(content)
    except (UserError, OSError) as error:
        if kind not in _told and not quietly:
            _told.add(kind)
            reason = error.found if isinstance(error, UserError) else str(error)
            print(f"not kept in {path.parent}: {reason}", file=sys.stderr)
