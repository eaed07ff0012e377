"""The one exception that the command line turns into a message, and how messages list things."""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import islice

# What a terminal acts on: control characters (with the escape sequences that they begin) and marks
# that turn the direction of writing; and halves of characters, in which Python keeps bytes that are
# no UTF-8 and which cannot be written at all. Line ends and tabs stay.
_ACTED_ON = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)


def printable(text: str) -> str:
    """Return text that a terminal shows as it is: what it would act on is spelled out.

    For all that comes from elsewhere: names, tags, logs, heartbeats. `\\x1b[2J` is then shown as
    these letters, and does not clear the screen.
    """
    return _ACTED_ON.sub(lambda found: _spelled(ord(found[0])), text.replace("\r\n", "\n"))


def _spelled(code: int) -> str:
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


class UserError(Exception):
    """Something a person can mend: bad input, a missing file, an impossible setting.

    Args:
        found: What was found, in one sentence.
        where: File, key or line it was found at.
        expected: What would have been right.
        fix: What to do about it.
    """

    def __init__(
        self,
        found: str,
        *,
        where: object | None = None,
        expected: str | None = None,
        fix: str | None = None,
    ) -> None:
        self.found = found
        self.where = None if where is None else str(where)
        self.expected = expected
        self.fix = fix
        lines = [found]
        if where is not None:
            lines.append(f"  where:    {where}")
        if expected is not None:
            lines.append(f"  expected: {expected}")
        if fix is not None:
            lines.append(f"  to do:    {fix}")
        super().__init__(printable("\n".join(lines)))


class PartlyDone(UserError):
    """Some of the items of a command failed, and the others are done."""


def with_help(error: UserError) -> str:
    """Return what is wrong with one of several things, with what helps, as one line."""
    parts = [" ".join(error.found.split())]
    parts += [f"expected: {error.expected}"] if error.expected else []
    parts += [f"to do: {error.fix}"] if error.fix else []
    return "; ".join(parts)


def listed(items: Iterable[object], most: int = 50, separator: str = ", ") -> str:
    """Return the items as one line for a message: at most `most`, and how many more there are."""
    remaining = iter(items)
    texts = [printable(str(item)) for item in islice(remaining, most)]
    more = sum(1 for _ in remaining)
    return separator.join(texts) + (f" and {more} more" if more else "")
