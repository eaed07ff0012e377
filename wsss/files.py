"""Outputs that appear at once or not at all, and the small file formats everything shares."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from wsss.errors import UserError


def _temporary_sibling(path: Path) -> Path:
    # Same folder, so that the rename stays within one file system; hidden, so that no glob for
    # results picks it up; with the process id, so that two processes never share one.
    return path.parent / f".{path.name}.{os.getpid()}.tmp"


def _as_user_error(error: OSError, path: Path) -> UserError:
    return UserError(
        f"cannot write this output: {error.strerror or error}",
        where=path,
        fix="check free space, quota and write permission of that folder, then start again",
    )


@contextmanager
def atomic_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path; on success it is synced and renamed to `path`, on error removed.

    Raises:
        UserError: The file system refused (full, read-only, not permitted).
    """
    final = Path(path)
    temporary = _temporary_sibling(final)
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with open(temporary, "rb") as handle:
            os.fsync(handle.fileno())
        os.replace(temporary, final)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        if error.filename is None or str(temporary) in str(error.filename):
            raise _as_user_error(error, final) from error
        raise
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextmanager
def atomic_directory(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary folder; on success it replaces `path`, on error it is removed.

    A folder cannot be swapped in one call everywhere, so an old one is moved aside first and
    deleted last: at no moment does a half-written folder carry the final name.
    """
    final = Path(path)
    temporary = _temporary_sibling(final)
    aside = final.parent / f".{final.name}.{os.getpid()}.old"
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        yield temporary
        if final.exists():
            os.replace(final, aside)
        os.replace(temporary, final)
        shutil.rmtree(aside, ignore_errors=True)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        if error.filename is None or str(temporary) in str(error.filename):
            raise _as_user_error(error, final) from error
        raise
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write UTF-8 text atomically."""
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def canonical_json(value: Any) -> str:
    """Return `value` as JSON with sorted keys and two-space indent: same value, same bytes."""
    return json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write `value` as canonical JSON, atomically."""
    write_text(path, canonical_json(value))


def read_json(path: str | os.PathLike[str]) -> Any:
    """Read JSON; a missing or malformed file is a `UserError` naming the place."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError("this file does not exist", where=path) from None
    except json.JSONDecodeError as error:
        raise UserError(
            f"this is not valid JSON: {error.msg}", where=f"{path}, line {error.lineno}"
        ) from None


def content_hash(value: Any) -> str:
    """Return the first 16 hex digits of the SHA-256 of `value`'s canonical JSON."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()[:16]
