"""What a data set format reports: entries with their places, and everything wrong with them."""

from __future__ import annotations

import codecs
import difflib
import errno
import os
import stat
import unicodedata
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import overload

from wsss.data.records import Codes, ImageRecord, Records
from wsss.errors import UserError
from wsss.files import check_utf8

SHOWN_PROBLEMS = 50
"""How many offenders an error message spells out; the rest is counted."""


@dataclass(frozen=True, order=True, slots=True)
class Problem:
    """One offender: the file (relative to the data root), its line if any, and the reason."""

    file: str
    line: int
    kind: str
    reason: str

    def __str__(self) -> str:
        place = f"{self.file}, line {self.line}" if self.line else self.file
        return f"{place}: {self.reason}"


@dataclass(frozen=True, slots=True)
class Entry:
    """One image as a format lists it, before any file has been opened.

    `file` and `line` say where it was listed (line 0: the file as a whole); `tags_file` where
    its tags come from; `size` (width, height) is what the annotations claim, if they do.
    """

    name: str
    path: str
    sets: tuple[str, ...]
    tags: tuple[str, ...]
    file: str
    line: int
    tags_file: str
    may_be_untagged: bool = False
    size: tuple[int, int] | None = None


class Entries(Sequence[Entry]):
    """A list of entries, to which others are added at the end, in arrays as `Records` are.

    Args:
        entries: The first ones.
    """

    def __init__(self, entries: Iterable[Entry] = ()) -> None:
        self._records = Records()
        self._lines = array("q")
        self._others: Codes[tuple[str, str, bool, bool]] = Codes()
        self._codes = array("i")
        for entry in entries:
            self.append(entry)

    def append(self, entry: Entry) -> None:
        """Add an entry at the end."""
        size = entry.size or (0, 0)
        self._records.append(ImageRecord(entry.name, entry.sets, entry.tags, *size, entry.path))
        self._lines.append(entry.line)
        others = (entry.file, entry.tags_file, entry.may_be_untagged, entry.size is not None)
        self._codes.append(self._others.code(others))

    def __len__(self) -> int:
        return len(self._records)

    @overload
    def __getitem__(self, place: int) -> Entry: ...
    @overload
    def __getitem__(self, place: slice) -> Entries: ...
    def __getitem__(self, place: int | slice) -> Entry | Entries:
        if isinstance(place, slice):
            return Entries(self[position] for position in range(len(self))[place])
        record = self._records[place]
        file, tags_file, may_be_untagged, has_size = self._others[self._codes[place]]
        return Entry(
            name=record.name,
            path=record.path,
            sets=record.sets,
            tags=record.tags,
            file=file,
            line=self._lines[place],
            tags_file=tags_file,
            may_be_untagged=may_be_untagged,
            size=(record.width, record.height) if has_size else None,
        )


@dataclass
class Listing:
    """The class names (without background), the entries, and the problems found so far.

    `notes` say what was left out or decided, a line each, for people. `chosen`: somebody listed
    the classes, so that names which look alike are meant.
    """

    classes: tuple[str, ...]
    entries: Entries = field(default_factory=Entries)
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    chosen: bool = False


FoundMasks = tuple[Mapping[str, str], list[Problem]]
"""Image name -> path of its mask relative to the root, and what is wrong with the masks."""


MAX_CLASSES = 254
"""A label is one byte: 0 is background, 255 is "ignore", the rest are classes."""


# Control characters, and halves of characters.
_UNPRINTED = frozenset(("Cc", "Cs"))


_COMPARED = 5000


class Nearest:
    """Asks for the names that were meant by words which are none.

    Args:
        known: The names; looked at when the first word comes.
    """

    def __init__(self, known: Iterable[str]) -> None:
        self._known = known
        self._asked = 0

    @cached_property
    def _composed(self) -> dict[str, str]:
        return {unicodedata.normalize("NFC", name): name for name in self._known}

    def __call__(self, word: str) -> str:
        """Return words that ask for the name; empty: none is near.

        Where it is the same name in other characters, they say so: the two look alike. Otherwise
        only the words of the problems that are shown are compared with all names, which takes a
        while.
        """
        same = self._composed.get(unicodedata.normalize("NFC", word), word)
        if same != word:
            return (
                f"; there is {same!r}, whose letters are stored in another way: {same!a}, "
                f"not {word!a} (composed and decomposed Unicode, NFC and NFD): write both alike"
            )
        self._asked += 1
        if self._asked > SHOWN_PROBLEMS or len(self._composed) > _COMPARED:
            return ""
        match = difflib.get_close_matches(word, self._composed.values(), n=1)
        return f"; did you mean {match[0]!r}?" if match else ""


def nearest(word: str, known: Iterable[str]) -> str:
    """Return what `Nearest` says of a single word."""
    return Nearest(known)(word)


def bad_class_name(name: str) -> str | None:
    """Say why `name` cannot name a class, or return None when it can."""
    if not name or name != name.strip():
        return "is empty or has blanks at its ends"
    if ";" in name or any(unicodedata.category(letter) in _UNPRINTED for letter in name):
        return "contains ';' or a control character (tags are joined by ';')"
    if name.lower() in {"background", "mean", "all"}:
        return "is reserved: the background is label 0, 'mean' and 'all' are rows of score tables"
    return None


def is_control(letter: str) -> bool:
    """Say whether a character is a line break or another control character."""
    return unicodedata.category(letter) == "Cc"


def is_text(name: str) -> bool:
    """Say whether the name of a file is text: Linux allows any bytes."""
    return not any("\ud800" <= letter <= "\udfff" for letter in name)


def class_problems(classes: Sequence[str], *, file: str | None, root: str = "") -> list[Problem]:
    """Return what is wrong with a data set's class names, and with their number.

    Args:
        classes: Without background.
        file: Where they stand, relative to the data root; None: each is the name of a folder.
        root: What too many of these folders are said of.
    """
    problems = []
    for name, count in Counter(classes).items():
        reason = bad_class_name(name) or ("stands twice in the list" if count > 1 else None)
        if reason is not None:
            problems.append(Problem(file or name, 0, "bad class name", f"{name!r} {reason}"))
    if len(classes) > MAX_CLASSES:
        reason = f"{len(classes)} classes, but a label picture holds at most {MAX_CLASSES}"
        problems.append(Problem(file or root, 0, "too many classes", reason))
    return problems


def _fair_choice(problems: Sequence[Problem], limit: int) -> list[Problem]:
    # One kind with thousands of offenders must not crowd the other kinds out of the message.
    numbers: Counter[str] = Counter()
    numbered: list[tuple[int, Problem]] = []
    for problem in problems:
        numbered.append((numbers[problem.kind], problem))
        numbers[problem.kind] += 1
    return sorted(problem for _, problem in sorted(numbered)[:limit])


def raise_problems(problems: Iterable[Problem], *, root: Path, what: str) -> None:
    """Raise one `UserError` that lists every problem (capped), or return when there is none.

    Args:
        problems: All that was found; the same problem twice counts once.
        root: Data root, named as the place.
        what: What the problems are in, such as "this data set".
    """
    ordered = sorted(set(problems))
    if not ordered:
        return
    counts = Counter(problem.kind for problem in ordered)
    summary = ", ".join(f"{kind} ({count})" for kind, count in sorted(counts.items()))
    number = "1 problem" if len(ordered) == 1 else f"{len(ordered)} problems"
    shown = _fair_choice(ordered, SHOWN_PROBLEMS)
    lines = [f"{number} in {what}: {summary}", *(f"  - {problem}" for problem in shown)]
    if len(shown) < len(ordered):
        lines.append(f"  - ... and {len(ordered) - len(shown)} more")
    raise UserError(
        "\n".join(lines),
        where=root,
        fix="mend the files named above and start again; nothing was written",
    )


def require_file(path: Path) -> None:
    """Refuse what is there and no file: a pipe would be waited for, a device never end.

    Raises:
        UserError: It is one of these, or a folder; or nothing can be called so.
    """
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError, ValueError):  # the last: a NUL in the path
        return
    except OSError as error:  # a name that is too long, a folder above that may not be entered
        if error.errno == errno.ELOOP:
            raise UserError("this link leads to no file", where=path) from None
        raise UserError(f"cannot read this file: {error.strerror}", where=path) from None
    if not stat.S_ISREG(mode):
        raise UserError("this is no file, but a folder, a pipe or a device", where=path)


def refuse_folder(error: OSError) -> None:
    """Refuse a folder that cannot be read: the `onerror` of `os.walk`.

    Raises:
        UserError: Always, unless it was taken away since the folder above it was read.
    """
    if not isinstance(error, FileNotFoundError):
        # Left out, its pictures would be missing, or its class, or its masks.
        raise UserError(
            f"cannot read this folder: {error.strerror}",
            where=error.filename,
            fix="take it away, or give this account the permission",
        )


def names_in(folder: Path) -> list[str]:
    """Return the names of what is in a folder, in order; none where there is no folder.

    Raises:
        UserError: It cannot be read.
    """
    try:
        return sorted(os.listdir(folder)) if folder.is_dir() else []  # noqa: PTH208 - names alone
    except OSError as error:
        refuse_folder(error)
        return []


def read_lines(path: Path) -> list[str]:
    """Return the lines of a UTF-8 text file (a byte order mark is dropped).

    Raises:
        UserError: The file is missing or is not text.
    """
    return list(lines_of(path))


def lines_of(path: Path, *, any_separator: bool = True) -> Iterator[str]:
    """Yield these lines one by one, for a file that may be large; errors come with the first.

    Args:
        path: The file.
        any_separator: Whether a line ends at whatever Unicode calls a separator of lines, too.
    """
    require_file(path)
    try:
        check_utf8(path)
        with open(path, encoding="utf-8-sig") as file:
            for text in file:
                yield from text.splitlines() if any_separator else (text.rstrip("\n"),)
    except UnicodeDecodeError:
        with open(path, "rb") as start:
            wide = start.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
        raise UserError(
            f"this file is {'UTF-16 text' if wide else 'not UTF-8 text'}",
            where=path,
            expected="UTF-8",
            fix="save it again as UTF-8 (Excel: 'CSV UTF-8')",
        ) from None
    except (OSError, ValueError) as error:  # a ValueError: a NUL in the path
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"cannot read this file: {reason}", where=path) from None
