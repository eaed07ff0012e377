"""What the ablations of a run change: the two tables' rows, each a few settings or another run.

Each row that changes settings is a run of its own, a child in `results/<run>/ablation/<row>/`,
which shares the run's index and stops at the CAM score.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from wsss.errors import UserError
from wsss.runtime.settings import unknown_key

Table = Literal["variants", "q"]
# Between a run's name and its child's, in names and so in paths.
INFIX = "/ablation/"


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


def read_ablations(values: Any, *, where: str) -> Ablations:
    """Read the section `ablation`; a variant that is null is left out.

    Raises:
        UserError: An unknown key, a wrong type, a q outside 0..1 or twice, an impossible name.
    """
    if not isinstance(values, Mapping):
        raise UserError("the ablations are not a mapping", where=where, expected="q, variants")
    for key in values:
        if key not in ("q", "variants"):
            raise unknown_key(key, ("q", "variants"), where=f"{where}.{key}")
    return Ablations(
        q=_q_values(values.get("q") or (), where=f"{where}.q"),
        variants=_variants(values.get("variants") or {}, where=f"{where}.variants"),
    )


def _q_values(values: Any, *, where: str) -> tuple[float, ...]:
    if not isinstance(values, (list, tuple)):
        raise UserError(f"{values!r} is not a list", where=where, expected="a list of numbers")
    for value in values:
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not is_number or not 0 <= value <= 1:
            raise UserError(f"{value!r} is no q", where=where, expected="numbers in 0..1")
        if values.count(value) > 1:
            raise UserError(f"{value} stands twice", where=where, expected="each q once")
    return tuple(float(value) for value in values)


def _variants(values: Any, *, where: str) -> dict[str, Mapping[str, Any] | str]:
    if not isinstance(values, Mapping):
        raise UserError(
            "the variants are not a mapping", where=where, expected="names and changed settings"
        )
    variants: dict[str, Mapping[str, Any] | str] = {}
    for name, changes in values.items():
        place = f"{where}.{name}"
        if not str(name).replace("-", "").replace("_", "").isalnum() or str(name)[:2] == "q-":
            raise UserError(
                f"'{name}' is no name for a variant",
                where=place,
                expected="letters, digits, - and _, and not 'q-' first, which the sweep has",
            )
        if changes is None:
            continue
        if not isinstance(changes, (Mapping, str)):
            raise UserError(
                f"{changes!r} is no variant",
                where=place,
                expected="changed settings by stage, another run's name, or null",
            )
        variants[str(name)] = changes
    return variants
