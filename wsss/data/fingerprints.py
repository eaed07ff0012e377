"""Hashes of what a data set's lists, pictures and masks contain; never of a time stamp.

An edit of the same size is an edit. So contents are hashed, and the digest of a file is remembered
for as long as its size, times and inode stay: a plan over a data set that has not changed opens
none of its files.
"""

from __future__ import annotations

import hashlib
import os
import stat
import time
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path

from wsss.data.digest_memory import NO_STAMP, STAMP_BYTES, DigestMemory, Digests, stamp_of
from wsss.data.listing import refuse_folder
from wsss.runtime.names import Names
from wsss.runtime.pool import ordered_map
from wsss.runtime.progress import progress

ABSENT = "absent"
"""In the place of the digest of a file that is not there."""

_THREADS = 8
_CHUNK = 64
_SHOWN_FROM = 2000
# What is known of a file before it is opened.
_FILE, _NO_FILE, _MISSING = range(3)


_memory: ContextVar[DigestMemory | None] = ContextVar("digest memory", default=None)


@contextmanager
def remembered(folder: Path | None, root: Path) -> Iterator[None]:
    """Remember digests of the files below `root`, between starts, in a file in `folder`.

    Args:
        folder: Any folder that can be written; None: everything is read.
        root: Data root.
    """
    memory = None if folder is None else DigestMemory(folder, root)
    token = _memory.set(memory)
    try:
        yield
    finally:
        _memory.reset(token)
        if memory is not None:
            memory.save()


def once(check: str, run: Callable[[], None]) -> None:
    """Run a check, unless it is remembered that it was passed.

    Args:
        check: What names it: a hash of all that it depends on.
        run: Raises if it fails.
    """
    memory = _memory.get()
    if memory is None or check not in memory.passed:
        run()
        if memory is not None:
            memory.note(check)


def _digest(path: str, kind: int) -> str:
    """Return the SHA-256 of a file's content, or words for what is no file."""
    if kind == _MISSING:
        return "broken link" if os.path.lexists(path) else ABSENT
    if kind == _NO_FILE:
        return "no file"  # Reading a pipe would wait for ever, and a device never end.
    try:
        with open(path, "rb") as handle:
            return hashlib.file_digest(handle, "sha256").hexdigest()
    except OSError as error:
        return f"unreadable: {error.errno}"  # The index stage says so, of all such files.


def file_digests(names: Sequence[str | os.PathLike[str]], prefix: str = "") -> Digests:
    """Return the SHA-256 of each file's content; words in its place where there is no such file.

    Args:
        names: The files.
        prefix: What stands before each of them, such as `/data/`.
    """
    memory = _memory.get()
    found, stamps, kinds = Digests(len(names)), bytearray(), bytearray()
    waiting = array("q")
    for position, name in enumerate(names):
        path = prefix + os.fspath(name)
        status: os.stat_result | None = None
        with suppress(OSError, ValueError):
            status = os.stat(path)  # noqa: PTH116 - a `Path` for each of 80,000 takes longer
        stamp = NO_STAMP if status is None else stamp_of(status)
        known = memory.get(path, stamp) if memory is not None and status else None
        if known is not None:
            found.put(position, known)
            continue
        waiting.append(position)
        stamps += stamp
        regular = status is not None and stat.S_ISREG(status.st_mode)
        kinds.append(_FILE if regular else _MISSING if status is None else _NO_FILE)
    seen = time.time()
    order = range(len(waiting))

    def digest(place: int) -> str:
        return _digest(prefix + os.fspath(names[waiting[place]]), kinds[place])

    for place, each in zip(order, _read_all(digest, order), strict=True):
        position = waiting[place]
        found.put(position, each)
        if memory is not None and kinds[place] == _FILE and len(each) == 64:
            stamp = bytes(stamps[place * STAMP_BYTES : (place + 1) * STAMP_BYTES])
            memory.put(prefix + os.fspath(names[position]), stamp, each, seen)
    return found


def _read_all(digest: Callable[[int], str], order: Sequence[int]) -> Iterator[str]:
    if len(order) < _THREADS:
        return map(digest, order)
    digests = ordered_map(digest, order, _THREADS, threads=True, chunk=_CHUNK)
    if len(order) < _SHOWN_FROM:
        return digests
    words = "looking at the data's content, which is remembered"
    return progress(digests, total=len(order), description=words, unit="file")


def content_digest(path: Path) -> str:
    """Hash a file's content; "absent" where there is none."""
    return file_digests([path])[0]


def named_digest(root: Path, files: Iterable[str]) -> str:
    """Hash the names and contents of files.

    Args:
        root: What the names are relative to.
        files: Their names, `/` between the parts.
    """
    names = files if isinstance(files, Names) else Names(files)
    digest = hashlib.sha256()
    for name, content in zip(names, file_digests(names, f"{os.fspath(root)}/"), strict=True):
        digest.update(os.fsencode(f"{name}\0{content}\0"))
    return digest.hexdigest()


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Say whether an entry is a folder; a link that leads to itself is none."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def folder_digest(folder: Path) -> str:
    """Hash the names and contents of a folder's files; hidden ones and folders in it do not count.

    It may not be there.

    Raises:
        UserError: It cannot be read.
    """
    names: list[str] = []
    try:
        if folder.is_dir():
            with os.scandir(folder) as entries:
                names = sorted(e.name for e in entries if e.name[0] != "." and not is_folder(e))
    except OSError as error:
        refuse_folder(error)
    kept = Names(names)
    del names
    return named_digest(folder, kept)


def _files_of_tree(root: Path) -> Iterator[str]:
    """Yield all files below a folder, in order, relative to it; hidden ones left out."""
    for folder, folders, files in os.walk(root, onerror=refuse_folder, followlinks=True):
        kept = (name for name in folders if not name.startswith("."))
        folders[:] = sorted(name for name in kept if not _leads_back(folder, name))
        for file in (Path(folder, name) for name in sorted(files) if not name.startswith(".")):
            yield file.relative_to(root).as_posix()


def _leads_back(folder: str, name: str) -> bool:
    """Say whether a folder in another one is a link to that one, or to one above it."""
    path = Path(folder, name)
    return path.is_symlink() and Path(folder).resolve().is_relative_to(path.resolve())


def tree_digest(root: Path) -> str:
    """Hash the names and contents of all files below a folder; hidden ones do not count.

    A link to nothing has a name alone: whether it matters is for those who read the folder.

    Raises:
        UserError: A folder cannot be read.
    """
    return named_digest(root, _files_of_tree(root))[:16]


def tree_sizes_digest(root: Path) -> str:
    """Hash the names and sizes of the same files: what costs no reading of them."""
    digest = hashlib.sha256()
    for place in _files_of_tree(root):
        file = root / place
        size = file.stat().st_size if file.exists() else ""
        digest.update(f"{place}\0{size}\0".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()[:16]


def combined(*parts: str) -> str:
    """Return one short hash of several parts."""
    return hashlib.sha256(os.fsencode("\n".join(parts))).hexdigest()[:16]
