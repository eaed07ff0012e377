"""How long things take: as Snakemake measured it, and as people read it."""

from __future__ import annotations

import csv
import io
import math
from pathlib import Path

from wsss.errors import UserError
from wsss.files import read_text


def clock(seconds: float) -> str:
    """Return seconds as h:mm:ss."""
    minutes, second = divmod(round(max(0.0, seconds)), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours:d}:{minute:02d}:{second:02d}"


def read_seconds(path: Path) -> float:
    """Return the seconds that Snakemake measured of a job, its repetitions together.

    Raises:
        UserError: The file is not as Snakemake writes it.
    """
    try:
        rows = csv.DictReader(io.StringIO(read_text(path), newline=""), delimiter="\t")
        times = [float(row["s"]) for row in rows]
    except (csv.Error, KeyError, TypeError, ValueError):
        times = [math.nan]
    if not all(0 <= time < math.inf for time in times):
        raise UserError(
            "this is no time that Snakemake measured",
            where=path,
            expected="a column `s` with seconds",
            fix="delete it: the time is then not shown",
        )
    return sum(times)
