"""What reaches a terminal: text, whatever it is made of, and escape sequences of ours alone.

Names of files, tags, classes, messages in heartbeats and lines of logs come from elsewhere, and are
printed by every command. So the streams themselves are guarded, once, where a command starts.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, TextIO

from wsss.errors import UserError, printable

_CLEAR = "\x1b[H\x1b[2J"


@contextmanager
def _explained(name: str) -> Iterator[None]:
    """Raise what a stream cannot take as that stream's: no output of the command is meant."""
    try:
        yield
    except BrokenPipeError:
        raise  # whoever read it has seen enough
    except OSError as error:
        raise UserError(
            f"cannot print here: {error.strerror or error}",
            where=name,
            fix="make room where it leads (`> FILE`), or lead it elsewhere; the files that this "
            "command has written are whole and stay",
        ) from error


class _Guarded:
    """A text stream that shows control characters instead of sending them."""

    def __init__(self, stream: TextIO, name: str) -> None:
        self.stream, self._name = stream, name

    def write(self, text: str) -> int:
        # A progress bar starts over at the beginning of its line.
        start = "\r" if text.startswith("\r") and not text.startswith("\r\n") else ""
        with _explained(self._name):
            self.stream.write(start + printable(text.removeprefix(start)))
        return len(text)

    def flush(self) -> None:
        with _explained(self._name):
            self.stream.flush()

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


@cache
def _nowhere() -> TextIO:
    """Return what stands for a stream that was closed before the start: `wsss ... >&-`."""
    return open(os.devnull, "w", encoding="utf-8")


@contextmanager
def guarded_streams() -> Iterator[None]:
    """Guard standard output and error.

    When a mistake of our own leaves the block they stay guarded: Python is about to print it.
    """
    before = sys.stdout, sys.stderr
    for stream in before:
        if isinstance(stream, io.TextIOWrapper):
            # Under `| tee` Python would hold lines back until a block is full; and a terminal of
            # few characters is no reason to end.
            stream.reconfigure(line_buffering=True, errors="backslashreplace")
    sys.stdout = _Guarded(sys.stdout or _nowhere(), "standard output")
    sys.stderr = _Guarded(sys.stderr or _nowhere(), "standard error")
    try:
        yield
    except Exception:
        raise
    except BaseException:
        sys.stdout, sys.stderr = before
        raise
    sys.stdout, sys.stderr = before


def clear_screen() -> None:
    """Clear the terminal."""
    stream = sys.stdout
    (stream.stream if isinstance(stream, _Guarded) else stream).write(_CLEAR)
