"""How much memory something takes, as Python counts it."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def peak_of(run: Callable[[], T]) -> tuple[T, int, int]:
    """Return a result, the bytes that it holds, and the most that were held meanwhile."""
    tracemalloc.start()
    try:
        result = run()
        return result, *tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
