"""Cheap hashes of what a data set's lists and masks consist of; never of a time stamp."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

_WHOLE_BYTES = 8 << 20
_END_BYTES = 1 << 20


def content_digest(path: Path) -> str:
    """Hash a file; of a file of more than 8 MiB its size, first and last MiB."""
    try:
        size = path.stat().st_size
        digest = hashlib.sha256(str(size).encode())
        with open(path, "rb") as handle:
            if size <= _WHOLE_BYTES:
                digest.update(handle.read())
            else:
                digest.update(handle.read(_END_BYTES))
                handle.seek(-_END_BYTES, os.SEEK_END)
                digest.update(handle.read())
    except FileNotFoundError:
        return "absent"
    return digest.hexdigest()


def folder_digest(folder: Path) -> str:
    """Hash the names and sizes of a folder's files."""
    digest = hashlib.sha256()
    if folder.is_dir():
        with os.scandir(folder) as entries:
            found = sorted((e.name, e.stat().st_size) for e in entries if e.name[0] != ".")
        for name, size in found:
            digest.update(f"{name}\0{size}\0".encode())
    return digest.hexdigest()


def folder_content_digest(folder: Path) -> str:
    """Hash the names and contents of a folder's files."""
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if path.is_file() and not path.name.startswith("."):
            digest.update(f"{path.name}\0{content_digest(path)}\0".encode())
    return digest.hexdigest()


def combined(*parts: str) -> str:
    """Return one short hash of several parts."""
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]
