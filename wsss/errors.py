"""The one exception that the command line turns into a message instead of a traceback."""

from __future__ import annotations


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
