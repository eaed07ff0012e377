"""Names of runs and of the rows of their tables, which are names of folders as well."""

from __future__ import annotations

import re

# Latin letters alone: an umlaut can be written as one character or as two, and two names that look
# the same would be two folders. No dash in front, where commands would take a name for an option.
NAME = "[A-Za-z0-9_][A-Za-z0-9_-]*"
"""Pattern of a name, for the workflow's wildcards too."""
EXPECTED = "letters (a to z), digits, - and _, and no - in front"
"""What a name is made of, for errors."""


def is_name(text: str) -> bool:
    """Say whether a run, or a row of its tables, can be called `text`."""
    return re.fullmatch(NAME, text) is not None and re.search("[A-Za-z0-9]", text) is not None
