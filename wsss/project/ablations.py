"""What the ablations of a run change: the two tables' rows, each a few settings or another run.

Each row that changes settings is a run of its own, a child in `results/<run>/ablation/<row>/`,
which shares the run's index and stops at the CAM score.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from wsss.errors import UserError
from wsss.project.names import EXPECTED, is_name
from wsss.runtime.settings import unknown_key

Table = Literal["variants", "q"]
# Between a run's name and its child's, in names and so in paths.
INFIX = "/ablation/"
# What a row may change: its table ends with the CAMs, of the same pictures.
CHANGED = ("cam", "lpcam", "export", "evaluation")


@dataclass(frozen=True)
class Ablations:
    """The rows of a run's ablation tables.

    Attributes:
        q: Initial q of each row of `ablation_q.csv` (ACR, CVPR 2023, supplementary, Table A2).
        variants: Rows of `ablation.csv`: name -> changed settings by stage, or another run's name.
    """

    q: tuple[float, ...] = ()
    variants: Mapping[str, Mapping[str, Any] | str] = field(default_factory=dict)

    def rows(self, table: Table) -> tuple[str, ...]:
        """Return the names of a table's rows, in order."""
        return tuple(q_row(q) for q in self.q) if table == "q" else tuple(self.variants)

    def changes(self, row: str) -> Mapping[str, Any] | str:
        """Return what a row of either table changes, by stage; or the run that it is.

        Raises:
            UserError: There is no such row.
        """
        if row in self.variants:
            return self.variants[row]
        for q in self.q:
            if row == q_row(q):
                return {"cam": {"acr": {"srf": True, "q_initial": q}}}
        raise unknown_key(row, [*self.rows("variants"), *self.rows("q")], where=row, kind="row")


def q_row(q: float) -> str:
    """Return the name of the row with this initial q: two decimals, more where it has more."""
    return f"q-{q:.2f}" if round(q, 2) == q else f"q-{q:g}"


def read_ablations(values: Mapping[str, Any], *, where: str) -> Ablations:
    """Read a section of rows whose types were checked; a variant that is null is left out.

    Raises:
        UserError: A q stands twice, or a variant has an impossible name or changes to no effect.
    """
    q = tuple(map(float, values.get("q") or ()))
    for value in q:
        if q.count(value) > 1:
            raise UserError(f"{value} stands twice", where=f"{where}.q", expected="each q once")
    variants = values.get("variants") or {}
    for name in variants:
        if not is_name(str(name)) or str(name)[:2] == "q-":
            raise UserError(
                f"'{name}' is no name for a variant",
                where=f"{where}.variants.{name}",
                expected=f"{EXPECTED}, and not 'q-' first, which the sweep has",
            )
        for section in row if isinstance(row := variants[name], Mapping) else ():
            if section not in CHANGED:
                raise UserError(
                    f"'{section}' has no effect: the table ends with the CAMs of the same pictures",
                    where=f"{where}.variants.{name}.{section}",
                    expected=f"one of: {', '.join(CHANGED)}",
                    fix="take it out, or compare with `methods:`, which go as far as one likes",
                )
    return Ablations(
        q=q, variants={str(name): row for name, row in variants.items() if row is not None}
    )
