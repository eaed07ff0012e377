"""Which class has which number, and names that may be two spellings of one class."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from wsss.data.listing import Problem, bad_class_name, nearest, read_lines, require_file
from wsss.data.tags import SEPARATORS, clean_name
from wsss.errors import UserError, listed

CLASSES = "classes.txt"
"""Optional list of a data set's classes, one a line, in the order of their labels."""

ALPHABETICAL = f"alphabetical, as there is no {CLASSES} (case ignored, 2 before 10)"
FROM_FILE = f"as {CLASSES} has them"

# Two classes of few letters are often a letter apart: cat, car, cow.
_LETTERS_OF_A_WORD = 4
_FEW_PICTURES = 2
_SHOWN = 20

# Letters of other scripts that look like Latin ones, and signs that look like letters.
_LIKE = str.maketrans(
    "\u0430\u0435\u043e\u0440\u0441\u0443\u0445\u0456\u0458\u0455\u04bb\u051b\u0501\u051d"
    "\u0432\u043a\u043c\u043d\u0442"
    "\u03b1\u03b5\u03bf\u03c1\u03c4\u03c5\u03c7\u03b9\u03ba\u03bd\u03b2\u03b7"
    "\u0131\u0261\u026a01|",
    "aeopcyxijshqdwbkmhtaeoptuxikvbnigioll",
)


def order_key(name: str) -> tuple[list[tuple[int, int, str]], str]:
    """Return what sorts names as a person does: case and accents ignored, 2 before 10."""
    letters = unicodedata.normalize("NFKD", name.casefold())
    plain = "".join(letter for letter in letters if not unicodedata.combining(letter))
    # Digits beyond those of any number that is meant as one are compared as text.
    parts = [part for part in re.split(r"(\d{1,18})", plain) if part]
    return [(0, int(p), "") if p.isdecimal() else (1, 0, p) for p in parts], name


def in_order(names: Iterable[str]) -> tuple[str, ...]:
    """Return the names, each once, in alphabetical order."""
    return tuple(sorted(set(names), key=order_key))


def read_classes(root: Path, problems: list[Problem]) -> tuple[str, ...]:
    """Return the names that classes.txt lists; empty: there is no such file.

    Args:
        root: Data root.
        problems: What is wrong with them is added.

    Raises:
        UserError: What is there cannot be read, which is not as if it were not there: the order of
            the classes would be another one.
    """
    path = root / CLASSES
    require_file(path)
    if not path.is_file():
        if path.is_symlink():
            raise UserError("this link leads to no file", where=path)
        return ()
    classes: list[str] = []
    for line, text in enumerate(read_lines(path), start=1):
        name = clean_name(text)
        if not name:
            continue
        reason = "stands twice in the list" if name in classes else bad_class_name(name)
        if reason is not None:
            problems.append(Problem(CLASSES, line, "bad class name", f"{name!r} {reason}"))
        classes.append(name)
    if not classes:
        problems.append(Problem(CLASSES, 0, "empty class list", "it names no class"))
    return tuple(classes)


def arranged(
    root: Path, found: Sequence[str], order: str, problems: list[Problem]
) -> tuple[tuple[str, ...], str]:
    """Return a data set's classes in label order, and words for that order.

    A classes.txt decides where there is one for these classes; public data sets have files of
    that name with other things in them, of which none is a class here.

    Args:
        root: Data root.
        found: The classes that the data have, in the order that holds without the file.
        order: Words for that order.
        problems: What is wrong with classes.txt is added.
    """
    own: list[Problem] = []
    wanted = read_classes(root, own)
    if not set(wanted) & set(found):
        left_out = f"; {CLASSES} names none of these classes and is not used" if wanted else ""
        return tuple(found), order + left_out
    problems += own
    for name in found:
        if name not in wanted:
            reason = f"the data have {name!r}, which is not in it{nearest(name, wanted)}"
            problems.append(Problem(CLASSES, 0, "class that is not listed", reason))
    return wanted, FROM_FILE


def order_note(order: str) -> str:
    """Return the line for people that says how labels are numbered."""
    return f"order of the classes, which numbers their labels: {order}"


def joined_names(classes: Sequence[str], *, file: str | None) -> list[Problem]:
    """Return the classes that are several others with a separator between them.

    Args:
        classes: Names as a folder, a column or a category has them, where a `,` can be right.
        file: Where they stand; None: each is the name of a folder.
    """
    problems = []
    for name in classes:
        for mark in SEPARATORS:
            parts = [clean_name(part) for part in name.split(mark)]
            if len(parts) > 1 and set(parts) <= set(classes):
                reason = f"class {name!r} is {' and '.join(map(repr, parts))}, classes of their own"
                problems.append(Problem(file or name, 0, "several classes in one name", reason))
    return problems


def check_order(
    before: Sequence[str], now: Sequence[str], *, where: Path, root: Path | None = None
) -> None:
    """Refuse to number classes in another order than an index that is there does.

    Args:
        before: Its classes.
        now: What they are to be.
        where: Its class list.
        root: Data root, for the message.

    Raises:
        UserError: Classes that are in both lists are in another order.
    """
    old, new = [clean_name(name) for name in before], list(now)
    if [name for name in old if name in new] == [name for name in new if name in old]:
        return
    raise UserError(
        "the classes would get other numbers than in the index that is there\n"
        f"  before:   {_numbered(before)}\n"
        f"  now:      {_numbered(now)}",
        where=where,
        expected="the same order: masks, models and label pictures that were made have its numbers",
        fix=f"to keep it, copy that file to {(root or Path('the data folder')) / CLASSES} (where "
        f"`index.classes` is set, change it there); for the new order, delete that file, and what "
        "was made with the old one is made again",
    )


def _numbered(names: Sequence[str]) -> str:
    return listed((f"{label} = {name}" for label, name in enumerate(names, start=1)), 50)


def class_counts(counts: Mapping[str, int]) -> str:
    """Return a line that says how many pictures have each class.

    Args:
        counts: Class -> its pictures, in label order.
    """
    return f"pictures of each class: {', '.join(f'{n} {count}' for n, count in counts.items())}"


def class_warnings(counts: Mapping[str, int], *, tagged: int, chosen: bool) -> list[str]:
    """Return lines on classes that may be a mistake: with one picture or all, or like another one.

    Args:
        counts: Class -> its pictures.
        tagged: Pictures with tags, which alone are trained on.
        chosen: Whether somebody listed the classes, so that all of these are meant.
    """
    lines = []
    everywhere = [name for name, count in counts.items() if count == tagged > 1]
    if everywhere:
        lines += [
            f"warning: every picture with tags has {listed(everywhere, _SHOWN)}:",
            "  where a class is, is learnt from pictures with and without it. Add pictures that",
            "  lack it and have another tag, be it of what else is in them",
        ]
    single = [name for name, count in counts.items() if count == 1]
    if single:
        lines.append(f"warning: classes with one picture: {listed(single, _SHOWN)}")
    alike = [] if chosen else look_alikes(counts)
    if alike:
        lines.append("warning: one class or two? As they stand, they are two:")
        lines += [f"  - {text}" for text in alike[:_SHOWN]]
        lines += [f"  - ... and {len(alike) - _SHOWN} more pairs"] * (len(alike) > _SHOWN)
    return lines


def look_alikes(counts: Mapping[str, int]) -> list[str]:
    """Return a line for each two names that may be one: case, plural, a letter, characters."""
    names = list(counts)
    found = []
    for position, one in enumerate(names):
        for other in names[position + 1 :]:
            how = _likeness(one, other, rare=min(counts[one], counts[other]) <= _FEW_PICTURES)
            if how is not None:
                found.append(f"{one!r} ({counts[one]}) and {other!r} ({counts[other]}): {how}")
    return found


def _likeness(one: str, other: str, *, rare: bool) -> str | None:
    a, b = one.casefold(), other.casefold()
    if a == b:
        return "they differ in case"
    if re.sub(r"[\s_-]+", "", a) == re.sub(r"[\s_-]+", "", b):
        return "they differ in blanks and hyphens"
    if _skeleton(a) == _skeleton(b):
        return f"they differ in characters that look alike ({one!a}, {other!a})"
    if _is_plural(a, b) or _is_plural(b, a):
        return "they differ in a plural ending"
    is_long = min(len(a), len(b)) >= _LETTERS_OF_A_WORD
    if (is_long or rare) and _one_edit(a, b):
        return "they differ in one letter"
    return None


def _skeleton(name: str) -> str:
    return unicodedata.normalize("NFKC", name).casefold().translate(_LIKE)


def _is_plural(one: str, many: str) -> bool:
    endings = [one + "s", one + "es"]
    endings += [one[:-1] + "ies"] * one.endswith("y") + [one[:-1] + "ves"] * one.endswith("f")
    return len(one) > 1 and many in endings


def _one_edit(a: str, b: str) -> bool:
    """Say whether a letter was left out, put in, changed or swapped; numbers are meant."""
    if len(a) > len(b):
        a, b = b, a
    if len(b) - len(a) > 1:
        return False
    start = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), len(a))
    if len(a) < len(b):
        return a[start:] == b[start + 1 :] and not b[start].isdigit()
    if a[start + 1 :] == b[start + 1 :]:
        return not (a[start].isdigit() or b[start].isdigit())
    swapped = a[start : start + 2] == b[start : start + 2][::-1]
    return swapped and a[start + 2 :] == b[start + 2 :]
