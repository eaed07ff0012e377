"""What a fuzz target is."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

Damage = Callable[[bytes, random.Random], bytes]


@dataclass(frozen=True)
class Target:
    """A reader.

    Attributes:
        make: Writes sound files into a folder; returns those to damage, each with the ways to.
        read: Reads them.
    """

    make: Callable[[Path], list[tuple[Path, tuple[Damage, ...]]]]
    read: Callable[[Path], object]
