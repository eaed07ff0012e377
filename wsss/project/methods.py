"""What a run's comparison of methods is made of: rows, each a run or a few settings, by seeds.

Each row of each seed is a run of its own, a child in `results/<run>/methods/<row>.seed-<n>/`, which
shares the run's index and goes as far as the comparison does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from wsss.errors import UserError
from wsss.project.file import StopAfter
from wsss.project.names import EXPECTED, is_name
from wsss.runtime.settings import unknown_key

# Between a run's name and its child's, in names and so in paths.
INFIX = "/methods/"
_SEED = ".seed-"


@dataclass(frozen=True)
class Methods:
    """The comparison of methods that a run is asked for.

    Attributes:
        seeds: Seeds of every row.
        stop_after: The last thing that is scored of every row.
        rows: Name -> changed settings by stage, or another run's name.
    """

    seeds: tuple[int, ...] = ()
    stop_after: StopAfter = "cam"
    rows: Mapping[str, Mapping[str, Any] | str] = field(default_factory=dict)

    def split(self, child: str) -> tuple[str, int]:
        """Return row and seed of a child's name without its run's: `cam.seed-1`.

        Raises:
            UserError: There is no such row, or it has no such seed.
        """
        row, _, seed = child.partition(_SEED)
        if row not in self.rows or seed not in map(str, self.seeds):
            known = [child_name(row, seed) for row in self.rows for seed in self.seeds]
            raise unknown_key(child, known, where=child, kind="method and seed")
        return row, int(seed)


def child_name(row: str, seed: int) -> str:
    """Return a child's name without its run's."""
    return f"{row}{_SEED}{seed}"


def read_methods(values: Mapping[str, Any], *, where: str) -> Methods:
    """Read a section whose types were checked; a row that is null is left out.

    Raises:
        UserError: A seed stands twice, or a row has an impossible name.
    """
    seeds = tuple(values.get("seeds") or ())
    for seed in seeds:
        if seeds.count(seed) > 1:
            raise UserError(
                f"{seed} stands twice", where=f"{where}.seeds", expected="each seed once"
            )
    rows = {str(name): row for name, row in (values.get("rows") or {}).items()}
    for name in rows:
        if not is_name(name):
            raise UserError(
                f"'{name}' is no name for a method",
                where=f"{where}.rows.{name}",
                expected=EXPECTED,
            )
    return Methods(
        seeds=seeds,
        stop_after=values.get("stop_after") or "cam",
        rows={name: row for name, row in rows.items() if row is not None},
    )
