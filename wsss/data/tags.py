"""Tags as people and programs write them, read as single names; what is in doubt is refused.

`dog,sofa` that is taken for one tag becomes a class of its own, and so does a name that looks the
same but is stored in other characters. Nothing later notices: the scores look like any others.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from wsss.data.listing import Problem

SEPARATORS = (";", ",", "|")
"""What can stand between the tags of a cell: one of them in a file."""

IN_DOUBT = "tags in doubt"
"""Kind of the problem that a cell can be read in more than one way."""

_BLANKS = re.compile("[ \t\r\n\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]+")
_BREAK = re.compile("[\n\r\u2028\u2029]")
# Without a width or a mark of their own, though Unicode does not call them format characters.
_INVISIBLE = frozenset(
    [*map(chr, (0x034F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x3164, 0xFFA0))]
    + [
        chr(code)
        for first, last in ((0x180B, 0x180F), (0xFE00, 0xFE0F))
        for code in range(first, last + 1)
    ]
)
# ['dog', 'sofa'] or ["dog"] or array(['dog']), as Python, pandas and NumPy print a list.
_LIST = re.compile(r"\s*\w*\(?\s*\[.*\]\s*\)?\s*|\s*[({]\s*['\"].*", re.DOTALL)


@lru_cache(maxsize=4096)
def clean_name(text: str) -> str:
    """Return a name in one spelling: composed (NFC), no invisible characters, single blanks.

    Names that look the same to a person are then the same.
    """
    kept = (c for c in text if unicodedata.category(c) != "Cf" and c not in _INVISIBLE)
    composed = unicodedata.normalize("NFC", "".join(kept))
    return _BLANKS.sub(" ", composed).strip(" ")


@dataclass(frozen=True, slots=True)
class Cell:
    """What one place of a file says of a picture's tags.

    Attributes:
        line: Its line.
        text: Text with any number of tags in it; or single names, where the file's form keeps
            them apart.
    """

    line: int
    text: str | tuple[str, ...]


@dataclass(frozen=True)
class Tags:
    """The tags of a file.

    Attributes:
        of: Tags of each cell, in the cells' order; empty where the cell is in doubt.
        problems: The cells that are in doubt.
        separator: What stands between tags; None: each cell holds one at most.
    """

    of: tuple[frozenset[str], ...]
    problems: tuple[Problem, ...]
    separator: str | None

    @property
    def notes(self) -> list[str]:
        """Lines for people that say what was taken for a separator, where it is not `;`."""
        if self.separator in (None, ";"):
            return []
        return [
            f"{self.separator!r} separates tags in this file; a name that holds one must stand in "
            "classes.txt"
        ]


def read_tags(cells: Sequence[Cell], known: Collection[str], *, file: str) -> Tags:
    """Read the tags of a file, all of its cells in one way.

    Args:
        cells: What the file says.
        known: Class names that were listed, clean; they are never split.
        file: The file, relative to the data root.
    """
    names = frozenset(known)
    protect = _protecting(names)
    joined = [cell.text for cell in cells if isinstance(cell.text, str)]
    separator = _separator(joined, protect)
    found: list[frozenset[str]] = []
    problems: list[Problem] = []
    # Few texts are in many cells: one object for all that say the same.
    read: dict[str | tuple[str, ...], tuple[frozenset[str], str | None]] = {}
    for cell in cells:
        if cell.text not in read:
            parts = _split(cell.text, separator, names) if isinstance(cell.text, str) else cell.text
            tags = [name for name in map(clean_name, parts) if name]
            whole = cell.text if isinstance(cell.text, str) else None
            reason = _doubt(whole, tags, separator, names)
            if whole is not None and reason is None:
                reason = _broken(parts, separator, names)
            read[cell.text] = frozenset(() if reason is not None else tags), reason
        tags_found, reason = read[cell.text]
        if reason is not None:
            problems.append(Problem(file, cell.line, IN_DOUBT, reason))
        found.append(tags_found)
    return Tags(tuple(found), tuple(problems), separator)


def _protecting(known: Iterable[str]) -> re.Pattern[str] | None:
    """Return what finds known names with a separator in them, as whole tags."""
    several = [name for name in known if any(mark in name for mark in SEPARATORS)]
    if not several:
        return None
    words = "|".join(re.escape(name) for name in sorted(several, key=len, reverse=True))
    return re.compile(rf"(?:^|(?<=[;,|]))\s*(?:{words})\s*(?=$|[;,|])")


def _separator(texts: Iterable[str], protect: re.Pattern[str] | None) -> str | None:
    """Return what separates tags: `;` where it occurs, else the more frequent of `,` and `|`."""
    counts: Counter[str] = Counter()
    for text in texts:
        bare = protect.sub("", clean_name(text)) if protect else text
        if not _LIST.fullmatch(text):
            counts.update(mark for mark in SEPARATORS if mark in bare)
    if not counts:
        return None
    return ";" if counts[";"] else max((",", "|"), key=lambda mark: counts[mark])


def _split(text: str, separator: str | None, known: frozenset[str]) -> list[str]:
    """Split a cell; neighbours that form a known name together stay together."""
    if separator is None or clean_name(text) in known:
        return [text]
    pieces = text.split(separator)
    # No known name is made of more: a cell of thousands of tags takes no longer than it is long.
    longest = 1 + max((name.count(separator) for name in known), default=0)
    parts: list[str] = []
    start = 0
    while start < len(pieces):
        ends = range(min(len(pieces), start + longest), start + 1, -1)
        joins = (end for end in ends if clean_name(separator.join(pieces[start:end])) in known)
        end = next(joins, start + 1)
        parts.append(separator.join(pieces[start:end]))
        start = end
    return parts


def _broken(parts: Iterable[str], separator: str | None, known: frozenset[str]) -> str | None:
    """Say which tag has a line break in it, as a list of tags in a spreadsheet's cell has."""
    for part in parts:
        if _BREAK.search(part.strip()) and clean_name(part) not in known:
            return (
                f"{part.strip()!r} has a line break in it: are these several tags? Write them with "
                f"{separator or ';'!r} between"
            )
    return None


def _doubt(
    whole: str | None, tags: Sequence[str], separator: str | None, known: frozenset[str]
) -> str | None:
    """Say why a cell cannot be read for sure; None: it can."""
    between = separator or ";"
    if whole is not None and clean_name(whole) not in known and _LIST.fullmatch(whole):
        return f"{whole!r} is a list as programs print it; write its tags with {between!r} between"
    for tag in tags:
        if tag in known:
            continue
        if _LIST.fullmatch(tag):
            return f"{tag!r} is a list as programs print it; write its tags one by one"
        mark = next((mark for mark in SEPARATORS if mark in tag), None)
        if mark is not None:
            kept = f"{separator!r} separates this file's tags" if separator else "it is one tag"
            return (
                f"{tag!r} holds {mark!r}, but {kept}: are these several? Write them with "
                f"{between!r} between; a name that holds {mark!r} must stand in classes.txt"
            )
    return None
