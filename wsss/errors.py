"""The one exception that the command line turns into a message, and how messages list things."""

from __future__ import annotations

from collections.abc import Iterable


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
        super().__init__("\n".join(lines))


class PartlyDone(UserError):
    """Some of the items of a command failed, and the others are done."""


def listed(items: Iterable[object], most: int = 50, separator: str = ", ") -> str:
    """Return the items as one line for a message: at most `most`, and how many more there are."""
    texts = [str(item) for item in items]
    if len(texts) <= most:
        return separator.join(texts)
    return f"{separator.join(texts[:most])} and {len(texts) - most} more"
