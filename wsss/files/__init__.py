"""Outputs that appear at once or not at all, and the small file formats everything shares."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
from codecs import getincrementaldecoder
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

from wsss.errors import UserError
from wsss.files.marks import check_replaceable, write_mark
from wsss.files.temporaries import remove, temporary_sibling

_SYNC_THREADS = 8
_SYNCED_AT_ONCE = 1024
_PIECE = 1 << 16
# Bytes of a name, and of a path on Linux with room for the folder it is joined to.
_LONGEST_NAME, _LONGEST_PATH = 255, 2048
# The storage itself refused: full, over quota, read-only, file too large, broken.
_REFUSED = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG, errno.EIO)
# How libraries that are not written in Python say so in the text of another exception: HDF5
# ("errno = 28"), Rust ("os error 28"), PyTorch (the words of strerror).
_NUMBER = re.compile(r"\b(?:errno = |os error )(\d+)\b")
_WORDS = {os.strerror(number): number for number in _REFUSED}


_ENCODER = json.JSONEncoder(indent=2, sort_keys=True, ensure_ascii=False)


def storage_failure(error: BaseException) -> int | None:
    """Return the error number if the storage refused to write; None: it is something else.

    What a library raised while it handled the refusal counts too.
    """
    seen: BaseException | None = error
    while seen is not None and not isinstance(seen, UserError):
        if isinstance(seen, OSError) and seen.errno in _REFUSED:
            return seen.errno
        text = str(seen)
        numbers = {int(number) for number in _NUMBER.findall(text)}
        numbers |= {number for words, number in _WORDS.items() if words in text}
        for number in numbers & set(_REFUSED):
            return number
        seen = seen.__cause__ or seen.__context__
    return None


def storage_error(number: int, path: object) -> UserError:
    """Return the message for a refusal of the storage at `path`."""
    remedies = {
        errno.ENOSPC: f"make room there{_free_space(path)}",
        errno.EDQUOT: "make room: your quota there is used up (quota -s)",
        errno.EROFS: "make that folder writable, or work in a copy of the project elsewhere",
        errno.EFBIG: "raise the limit on file sizes (ulimit -f), or use another file system",
    }
    remedy = remedies.get(number, "have the disk or the file server looked at")
    return UserError(
        f"cannot write this output: {os.strerror(number)}",
        where=path,
        fix=f"{remedy}; then start again: finished outputs are whole and stay",
    )


def _free_space(path: object) -> str:
    for folder in Path(str(path)).absolute().parents:
        if folder.is_dir():
            usage = shutil.disk_usage(folder)
            return f" ({usage.free / 1e6:.1f} of {usage.total / 1e6:.1f} MB are free without it)"
    return ""


@contextmanager
def _explained(final: Path, temporary: Path) -> Iterator[None]:
    """Remove the temporary on any error; raise one that the file system made as `UserError`."""
    try:
        yield
    except BaseException as error:
        remove(temporary)
        if isinstance(error, UserError) or not isinstance(error, Exception):
            raise
        named = str(getattr(error, "filename", None) or "")
        # An input that cannot be read is for others to explain.
        ours = not named or str(temporary) in named
        number = storage_failure(error)
        if ours and number is not None:
            raise storage_error(number, final) from error
        if named and ours:
            reason = getattr(error, "strerror", None) or error
            raise UserError(
                f"cannot write this output: {reason}",
                where=final,
                fix="check that folder and the permission to write there, then start again",
            ) from error
        raise


def _make_folder(folder: Path) -> None:
    missing = [place for place in (folder, *folder.parents) if not place.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for place in missing:
            _sync(place.parent)
    except OSError as error:
        if storage_failure(error) is not None:
            raise storage_error(int(error.errno or 0), folder) from error
        raise UserError(
            f"cannot make this folder: {error.strerror or error}",
            where=folder,
            fix="check the folder above and the permission to write there, then start again",
        ) from error


@contextmanager
def atomic_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path; on success it is synced and renamed to `path`, on error removed.

    The folder is synced, too: after a power cut, what has its final name is whole.

    Raises:
        UserError: The file system refused (full, read-only, not permitted).
    """
    final = Path(path)
    temporary = temporary_sibling(final)
    _make_folder(final.parent)
    with _explained(final, temporary):
        yield temporary
        _sync(temporary)
        os.replace(temporary, final)
        _sync(final.parent)


def _sync(path: Path) -> None:
    """Have the storage keep a file's content, or which names a folder holds, over a power cut.

    Raises:
        OSError: The storage refused, or what was written before could not be kept.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except PermissionError:
        # A folder that may be written in and not be listed.
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some file systems cannot do it for folders; nothing more can be done there.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF):
            raise
    finally:
        os.close(descriptor)


def _sync_all(folder: Path) -> None:
    """Sync all files in a folder, then the folders."""
    folders = []
    # One after the other, each would wait for the disk; together, they share its writes. Not all
    # at once: what waits takes a kilobyte.
    with ThreadPoolExecutor(_SYNC_THREADS) as threads:
        for place, _, names in os.walk(folder):
            folders.append(Path(place))
            paths = (Path(place, name) for name in names)
            files = (path for path in paths if not path.is_symlink())
            while some := list(islice(files, _SYNCED_AT_ONCE)):
                list(threads.map(_sync, some))
    for inner in reversed(folders):
        _sync(inner)


@contextmanager
def atomic_directory(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary folder; on success it replaces `path`, on error it is removed.

    A folder cannot be swapped in one call everywhere, so an old one is moved aside first and
    deleted last: at no moment does a half-written folder carry the final name, nor does one after
    a power cut, as all files are synced first, and the folders after them. Only a folder that
    was written in this way, and holds nothing else, is ever replaced: see `wsss.files.marks`.

    Raises:
        UserError: What is there is not ours to replace, or the file system refused (full,
            read-only, not permitted).
    """
    final = Path(path)
    temporary = temporary_sibling(final)
    aside = temporary_sibling(final, "old")
    check_replaceable(final)
    _make_folder(final.parent)
    with _explained(final, temporary):
        remove(temporary)
        temporary.mkdir()
        yield temporary
        write_mark(temporary)
        _sync_all(temporary)
        # The work may have taken days, in which somebody used the folder.
        check_replaceable(final)
        if os.path.lexists(final):
            os.replace(final, aside)
        os.replace(temporary, final)
        _sync(final.parent)
        remove(aside)


@contextmanager
def written_text(path: str | os.PathLike[str]) -> Iterator[TextIO]:
    """Yield a file for UTF-8 text that appears at once, as `atomic_file` has it."""
    with atomic_file(path) as temporary, temporary.open("w", encoding="utf-8") as handle:
        yield handle


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write UTF-8 text atomically."""
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def canonical_json(value: Any) -> str:
    """Return `value` as JSON with sorted keys and two-space indent: same value, same bytes."""
    return _ENCODER.encode(value) + "\n"


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write `value` as canonical JSON, atomically."""
    write_text(path, canonical_json(value))


def read_text(path: str | os.PathLike[str]) -> str:
    """Read UTF-8 text.

    Raises:
        UserError: The file is missing, cannot be read, or is no UTF-8.
    """
    with _read_errors(path):
        return Path(path).read_text(encoding="utf-8")


@contextmanager
def opened_text(path: str | os.PathLike[str]) -> Iterator[TextIO]:
    """Yield a file of UTF-8 text, to be read line by line where it may be large.

    Raises:
        UserError: As of `read_text`, before anything is read.
    """
    with _read_errors(path):
        try:
            check_utf8(path)
        except UnicodeDecodeError:
            read_text(path)  # which knows the place
            raise
        handle = open(path, encoding="utf-8")  # noqa: SIM115 - closed below
    with handle:
        yield handle


def check_utf8(path: str | os.PathLike[str]) -> None:
    """Read a file once, a piece at a time, to see whether it is UTF-8 text.

    Raises:
        UnicodeDecodeError: It is not; the place is that in the piece.
        OSError: It cannot be read.
    """
    decoder = getincrementaldecoder("utf-8")()
    with open(path, "rb") as handle:
        while piece := handle.read(_PIECE):
            decoder.decode(piece)
    decoder.decode(b"", final=True)


@contextmanager
def _read_errors(path: str | os.PathLike[str]) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise UserError("this file does not exist", where=path) from None
    except UnicodeDecodeError as error:
        raise UserError(
            f"this file is not UTF-8 text (byte {error.start}: {error.reason})",
            where=path,
            fix="save it as UTF-8; if wsss wrote it, it is damaged: delete it and start again",
        ) from None
    except (OSError, ValueError) as error:  # a ValueError: a NUL in the path
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"cannot read this file: {reason}", where=repr(str(path))) from None


def read_json(path: str | os.PathLike[str]) -> Any:
    """Read JSON.

    Raises:
        UserError: The file is missing, cannot be read, or is no JSON, or one that holds half of a
            character.
    """
    text = read_text(path)
    try:
        value = json.loads(text)
        if "\\ud" in text.lower():
            # Half of a surrogate pair: nobody can print it, and no file can be named so.
            json.dumps(value, ensure_ascii=False).encode()
    except json.JSONDecodeError as error:
        raise UserError(
            f"this is not valid JSON: {error.msg}", where=f"{path}, line {error.lineno}"
        ) from None
    except RecursionError:
        raise UserError("this JSON is nested too deeply", where=path) from None
    except ValueError as error:
        raise UserError(f"this is not valid JSON: {error}", where=path) from None
    return value


def read_json_object(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read JSON that is an object, such as a stage's settings.

    Raises:
        UserError: It is none; see `read_json` too.
    """
    value = read_json(path)
    if not isinstance(value, dict):
        raise UserError(
            f"this JSON is a {type(value).__name__}",
            where=path,
            expected="an object: {...}",
            fix="if wsss wrote it, it is damaged: delete it and start again",
        )
    return value


def file_digest(path: str | os.PathLike[str]) -> str:
    """Return the first 16 hex digits of the SHA-256 of a file's content."""
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()[:16]


def content_hash(value: Any) -> str:
    """Return the first 16 hex digits of the SHA-256 of `value`'s canonical JSON."""
    digest = hashlib.sha256()
    # Piece by piece: the text of a list of all images is large.
    for piece in _ENCODER.iterencode(value):
        digest.update(piece.encode())
    digest.update(b"\n")
    return digest.hexdigest()[:16]


def is_too_long(path: str) -> bool:
    """Say whether no system takes this for a path."""
    longest = max(len(part.encode("utf-8", "surrogatepass")) for part in path.split("/"))
    return longest > _LONGEST_NAME or len(path) > _LONGEST_PATH


def is_below(name: str) -> bool:
    """Say whether a relative path stays below the folder that it is joined to, on any system.

    What no file system takes for a name does not.
    """
    parts = re.split(r"[/\\]", name)
    return not (
        name == ""
        or is_too_long(name)
        or "\0" in name
        or parts[0] == ""
        or re.match(r"[A-Za-z]:[/\\]", name)
        or any(part in ("", ".", "..") for part in parts)
    )


def checked_name(name: str, where: object) -> str:
    """Return `name` if it stays below its folder.

    Args:
        name: A path, `/` between its parts.
        where: The place that it was read at.

    Raises:
        UserError: It is absolute, or leads out of its folder.
    """
    if is_below(name):
        return name
    raise UserError(
        f"{name!r} is no name of a file below a folder",
        where=where,
        expected="a path relative to its folder, without '..'",
        fix="have the file written again, by whom you trust",
    )
