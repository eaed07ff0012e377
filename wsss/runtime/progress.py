"""Progress with an ETA: a bar on a terminal, plain lines in a log, and the stage's heartbeat."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import TypeVar

from tqdm import tqdm

from wsss.runtime.heartbeat import beat
from wsss.runtime.times import clock

T = TypeVar("T")

# A log that gets a line a second is unreadable, one without a line for minutes looks dead.
LINE_INTERVAL_S = 15.0


class Progress:
    """Counts finished items and tells how many a second, and when it will be over.

    Args:
        total: Items in all.
        description: What is being done, a few words.
        unit: What one item is ("img", "step").
        initial: Items done before this process started (a resumed run).
        items_per_unit: Images in one unit, to report images per second for steps.
    """

    def __init__(
        self,
        total: int,
        description: str,
        unit: str = "img",
        *,
        initial: int = 0,
        items_per_unit: int = 1,
    ) -> None:
        self._total, self._description, self._unit = total, description, unit
        self._initial = self._done = initial
        self._items_per_unit = items_per_unit
        self._start = self._last_line = time.monotonic()
        self._bar = (
            tqdm(total=total, desc=description, unit=unit, initial=initial, dynamic_ncols=True)
            if sys.stderr.isatty()
            else None
        )
        if self._bar is None:
            resumed = f", resuming at {initial}" if initial else ""
            self._print(f"{description}: {total} {unit}{resumed}")
        self._beat()

    @staticmethod
    def _print(text: str) -> None:
        # Whatever read these lines may have been stopped first; the work goes on without it.
        with suppress(BrokenPipeError):
            print(text, file=sys.stderr, flush=True)

    def _beat(self) -> None:
        beat(
            doing=self._description,
            done=self._done,
            total=self._total,
            unit=self._unit,
            images_per_s=round(self.rate * self._items_per_unit, 3),
            eta_s=round(self.eta_s) if self._done > self._initial else None,
        )

    @property
    def rate(self) -> float:
        """Units per second since this process started."""
        return (self._done - self._initial) / max(1e-9, time.monotonic() - self._start)

    @property
    def eta_s(self) -> float:
        """Seconds left at the present rate."""
        return (self._total - self._done) / max(1e-9, self.rate)

    def update(self, count: int = 1, note: str = "") -> None:
        """Count `count` more units as done; `note` is shown behind the numbers."""
        self._done += count
        self._beat()
        if self._bar is not None:
            if note:
                self._bar.set_postfix_str(note, refresh=False)
            self._bar.update(count)
            return
        now = time.monotonic()
        if now - self._last_line >= LINE_INTERVAL_S or self._done == self._total:
            self._last_line = now
            self._print(self._line(note))

    def _line(self, note: str) -> str:
        rate = self.rate * self._items_per_unit
        unit = self._unit if self._items_per_unit == 1 else "img"
        text = (
            f"{self._description}: {self._done}/{self._total} {self._unit}, {rate:.1f} {unit}/s, "
            f"elapsed {clock(time.monotonic() - self._start)}, ETA {clock(self.eta_s)}"
        )
        return f"{text}, {note}" if note else text

    def close(self) -> None:
        """Finish the bar."""
        if self._bar is not None:
            self._bar.close()


def progress(
    iterable: Iterable[T], *, total: int, description: str, unit: str = "img"
) -> Iterator[T]:
    """Yield from `iterable`, reporting progress on stderr."""
    reporter = Progress(total, description, unit)
    try:
        for item in iterable:
            yield item
            reporter.update()
    finally:
        reporter.close()
