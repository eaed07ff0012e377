"""Digests of a data set's files, kept between starts: 64 bytes a file and its name.

What is younger than a file system's clock ticks is not remembered: a change right after a look at a
file can leave the same times (Git calls such an entry racily clean).
"""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import overload

import numpy as np

from wsss.runtime.names import Names

MEMORY_VERSION = 2
_SETTLED_S = 2.5
_CHECKS = 50
# New digests beside those in order, at least: putting them there takes as long as all are many.
_RECENT = 4096
# Size, times of the last changes of content and inode in ns, inode.
_STAMP = struct.Struct("<QQQQ")
_DIGEST_BYTES = 32
_MOST = 2**64 - 1
STAMP_BYTES = _STAMP.size
NO_STAMP = bytes(STAMP_BYTES)
_ENTRY_BYTES = STAMP_BYTES + _DIGEST_BYTES


def stamp_of(status: os.stat_result) -> bytes:
    """Return what tells that a file has changed."""
    # The time of the last change of the inode is not at the disposal of who copies or edits. Some
    # file systems have 1601 where there is no time.
    values = (status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)
    return _STAMP.pack(*(min(max(value, 0), _MOST) for value in values))


class Digests(Sequence[str]):
    """SHA-256 of files in hexadecimal, or words in its place; equal to any list of the same.

    Args:
        count: How many; each is to be `put`.
    """

    def __init__(self, count: int) -> None:
        self._bytes = bytearray(_DIGEST_BYTES * count)
        self._words: dict[int, str] = {}

    def put(self, position: int, digest: str) -> None:
        """Set one of them."""
        if len(digest) == 2 * _DIGEST_BYTES:
            start = position * _DIGEST_BYTES
            self._bytes[start : start + _DIGEST_BYTES] = bytes.fromhex(digest)
        else:
            self._words[position] = digest

    def __len__(self) -> int:
        return len(self._bytes) // _DIGEST_BYTES

    @overload
    def __getitem__(self, place: int) -> str: ...
    @overload
    def __getitem__(self, place: slice) -> list[str]: ...
    def __getitem__(self, place: int | slice) -> str | list[str]:
        if isinstance(place, slice):
            return [self[position] for position in range(len(self))[place]]
        position = range(len(self))[place]
        start = position * _DIGEST_BYTES
        word = self._words.get(position)
        return self._bytes[start : start + _DIGEST_BYTES].hex() if word is None else word

    def __eq__(self, other: object) -> bool:
        return list(self) == list(other) if isinstance(other, Sequence) else NotImplemented

    __hash__ = None  # type: ignore[assignment]


class DigestMemory:
    """Digests of the files below one folder, kept in a file of its own between starts.

    Args:
        folder: Where the file lies; it is named after the data root, whose path it does not hold.
        root: Data root.
    """

    def __init__(self, folder: Path, root: Path) -> None:
        self._prefix = f"{os.fspath(root)}/"
        place = hashlib.sha256(os.fsencode(os.path.realpath(root))).hexdigest()[:16]
        self._file = folder / f"{place}.npz"
        self._names, self._entries = Names(), bytearray()
        self._new_names, self._new_entries = Names(), bytearray()
        self._recent: dict[str, int] = {}
        self.passed: list[str] = []
        self._changed = False
        # Damaged in whatever way, or of another version: a memory less, which only takes time.
        with suppress(Exception):
            self._load()

    def _load(self) -> None:
        with open(self._file, "rb") as file, np.load(file, allow_pickle=False) as stored:
            if int(stored["version"]) != MEMORY_VERSION:
                return
            names = Names.from_arrays(stored["text"], stored["ends"])
            entries = bytearray(stored["entries"].tobytes())
            passed = [str(each) for each in stored["passed"]]
        if len(entries) == len(names) * _ENTRY_BYTES:
            self._names, self._entries, self.passed = names, entries, passed

    def get(self, path: str, stamp: bytes) -> str | None:
        """Return the digest of a file that is as it was; None: it is not known."""
        name = path.removeprefix(self._prefix)
        entries, position = self._new_entries, self._recent.get(name)
        if position is None:
            entries, position = self._entries, self._names.position(name)
        if position is None:
            return None
        entry = entries[position * _ENTRY_BYTES : (position + 1) * _ENTRY_BYTES]
        return entry[STAMP_BYTES:].hex() if entry.startswith(stamp) else None

    def put(self, path: str, stamp: bytes, digest: str, seen: float) -> None:
        """Remember the digest of a file, unless it may change without a trace in its times."""
        _, changed, inode_changed, _ = _STAMP.unpack(stamp)
        if not path.startswith(self._prefix):
            return
        if max(changed, inode_changed) / 1e9 >= seen - _SETTLED_S:
            return
        name = path.removeprefix(self._prefix)
        self._recent[name] = len(self._new_names)
        self._new_names.append(name)
        self._new_entries += stamp + bytes.fromhex(digest)
        if len(self._recent) > max(_RECENT, len(self._names) // 8):
            self._merge()

    def note(self, check: str) -> None:
        """Remember that a check of these data, named by what it depends on, was passed."""
        self.passed = [*self.passed[-_CHECKS:], check]
        self._changed = True

    def _merge(self) -> None:
        """Put what is new among what was known, in the order of the names."""
        if not self._new_names:
            return
        # Copies, so that whoever interrupts this finds names and entries that belong together.
        names, entries = self._names[:], self._entries + self._new_entries
        for name in self._new_names:
            names.append(name)
        if not names.ascending:
            chosen = names.last_of_each()
            rows = np.frombuffer(entries, np.uint8).reshape(-1, _ENTRY_BYTES)
            names, entries = names.take(chosen), bytearray(rows[chosen].data)
            names.ascending = True
        self._names, self._entries, self._changed = names, entries, True
        self._new_names, self._new_entries, self._recent = Names(), bytearray(), {}

    def save(self) -> None:
        """Write the file, if there is something new; a folder that cannot be written is no harm."""
        self._merge()
        if not self._changed:
            return
        temporary = self._file.with_name(f".{self._file.name}.{os.getpid()}.tmp")
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            text, ends = self._names.arrays()
            with temporary.open("wb") as file:
                np.savez(
                    file,
                    version=np.int64(MEMORY_VERSION),
                    passed=np.array(self.passed, dtype=np.str_),
                    text=text,
                    ends=ends,
                    entries=np.array(self._entries, np.uint8),
                )
            os.replace(temporary, self._file)
            self._changed = False
            # What earlier versions kept.
            self._file.with_suffix(".json").unlink(missing_ok=True)
        except OSError:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
