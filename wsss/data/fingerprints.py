"""Hashes of what a data set's lists, pictures and masks contain; never of a time stamp.

An edit of the same size is an edit. So contents are hashed, and the digest of a file is remembered
for as long as its size, times and inode stay: a plan over a data set that has not changed opens
none of its files.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from wsss.runtime.progress import progress

ABSENT = "absent"
"""In the place of the digest of a file that is not there."""

MEMORY_VERSION = 1
# A change right after a look at a file can leave the same times, so that what is younger than the
# clock of any file system ticks is not remembered (Git calls such an entry racily clean).
_SETTLED_S = 2.5
_CHECKS = 50
_THREADS = 8
_SHOWN_FROM = 2000
_Stamp = tuple[int, int, int, int]


class DigestMemory:
    """Digests of the files below one folder, kept in a file of its own between starts.

    Args:
        folder: Where the file lies; it is named after the data root, whose path it does not hold.
        root: Data root.
    """

    def __init__(self, folder: Path, root: Path) -> None:
        self._prefix = f"{os.fspath(root)}/"
        place = hashlib.sha256(os.fsencode(os.path.realpath(root))).hexdigest()[:16]
        self._file = folder / f"{place}.json"
        self._known: dict[str, list[Any]] = {}
        self.passed: list[str] = []
        self._changed = False
        # Damaged or of another version: a memory less, which only takes time.
        with suppress(OSError, ValueError, LookupError, RecursionError, TypeError):
            values = json.loads(self._file.read_text(encoding="ascii"))
            if values["version"] == MEMORY_VERSION and isinstance(values["files"], dict):
                self._known = values["files"]
                self.passed = [str(each) for each in values["passed"]]

    def get(self, path: str, stamp: _Stamp) -> str | None:
        """Return the digest of a file that is as it was; None: it is not known."""
        entry = self._known.get(path.removeprefix(self._prefix))
        if not isinstance(entry, list) or entry[:-1] != list(stamp):
            return None
        digest = entry[-1]
        return digest if isinstance(digest, str) and len(digest) == 64 else None

    def put(self, path: str, stamp: _Stamp, digest: str, seen: float) -> None:
        """Remember the digest of a file, unless it may change without a trace in its times."""
        if path.startswith(self._prefix) and max(stamp[1:3]) / 1e9 < seen - _SETTLED_S:
            self._known[path.removeprefix(self._prefix)] = [*stamp, digest]
            self._changed = True

    def note(self, check: str) -> None:
        """Remember that a check of these data, named by what it depends on, was passed."""
        self.passed = [*self.passed[-_CHECKS:], check]
        self._changed = True

    def save(self) -> None:
        """Write the file, if there is something new; a folder that cannot be written is no harm."""
        if not self._changed:
            return
        temporary = self._file.with_name(f".{self._file.name}.{os.getpid()}.tmp")
        with suppress(OSError):
            self._file.parent.mkdir(parents=True, exist_ok=True)
            values = {"version": MEMORY_VERSION, "passed": self.passed, "files": self._known}
            temporary.write_text(json.dumps(values), encoding="ascii")
            os.replace(temporary, self._file)
            self._changed = False


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


def _digest(path: str, status: os.stat_result | None) -> str:
    """Return the SHA-256 of a file's content, or words for what is no file."""
    if status is None:
        return "broken link" if os.path.lexists(path) else ABSENT
    if not stat.S_ISREG(status.st_mode):
        return "no file"  # Reading a pipe would wait for ever, and a device never end.
    try:
        with open(path, "rb") as handle:
            return hashlib.file_digest(handle, "sha256").hexdigest()
    except OSError as error:
        return f"unreadable: {error.errno}"  # The index stage says so, of all such files.


def file_digests(paths: Sequence[str | os.PathLike[str]]) -> list[str]:
    """Return the SHA-256 of each file's content; words in its place where there is no such file."""
    memory = _memory.get()
    found: dict[int, str] = {}
    waiting: list[tuple[int, str, os.stat_result | None]] = []
    for position, path in enumerate([os.fspath(path) for path in paths]):
        status: os.stat_result | None = None
        with suppress(OSError, ValueError):
            status = os.stat(path)  # noqa: PTH116 - a `Path` for each of 80,000 takes longer
        known = memory.get(path, _stamp(status)) if memory is not None and status else None
        if known is not None:
            found[position] = known
        else:
            waiting.append((position, path, status))
    seen = time.time()
    digests = _read_all([(path, status) for _, path, status in waiting])
    for (position, path, status), digest in zip(waiting, digests, strict=True):
        found[position] = digest
        if memory is not None and status is not None and len(digest) == 64:
            memory.put(path, _stamp(status), digest, seen)
    return [found[position] for position in range(len(paths))]


def _stamp(status: os.stat_result) -> _Stamp:
    # The time of the last change of the inode is not at the disposal of who copies or edits.
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino


def _read_all(files: Sequence[tuple[str, os.stat_result | None]]) -> list[str]:
    if len(files) < _THREADS:
        return [_digest(path, status) for path, status in files]
    with ThreadPoolExecutor(_THREADS) as pool:
        digests: Iterable[str] = pool.map(lambda each: _digest(*each), files)
        if len(files) >= _SHOWN_FROM:
            words = "looking at the data's content, which is remembered"
            digests = progress(digests, total=len(files), description=words, unit="file")
        return list(digests)


def content_digest(path: Path) -> str:
    """Hash a file's content; "absent" where there is none."""
    return file_digests([path])[0]


def named_digest(root: Path, files: Iterable[str]) -> str:
    """Hash the names and contents of files.

    Args:
        root: What the names are relative to.
        files: Their names, `/` between the parts.
    """
    names = list(files)
    digest = hashlib.sha256()
    prefix = f"{os.fspath(root)}/"
    for name, content in zip(names, file_digests([prefix + name for name in names]), strict=True):
        digest.update(os.fsencode(f"{name}\0{content}\0"))
    return digest.hexdigest()


def folder_digest(folder: Path) -> str:
    """Hash the names and contents of a folder's files; hidden ones and folders in it do not count.

    It may not be there.
    """
    names: list[str] = []
    with suppress(OSError), os.scandir(folder) as entries:
        names = sorted(e.name for e in entries if e.name[0] != "." and not e.is_dir())
    return named_digest(folder, names)


def tree_digest(root: Path) -> str:
    """Hash the names and sizes of all files below a folder; hidden ones do not count.

    A link to nothing has a name alone: whether it matters is for those who read the folder.
    """
    digest = hashlib.sha256()
    for folder, folders, files in os.walk(root, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for file in (Path(folder, name) for name in sorted(files) if not name.startswith(".")):
            place = file.relative_to(root).as_posix()
            size = file.stat().st_size if file.exists() else ""
            digest.update(f"{place}\0{size}\0".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()[:16]


def combined(*parts: str) -> str:
    """Return one short hash of several parts."""
    return hashlib.sha256(os.fsencode("\n".join(parts))).hexdigest()[:16]
