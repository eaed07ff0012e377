"""What config.yaml may hold, as one model, which also makes its schema."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag, create_model
from pydantic_core import PydanticCustomError

from wsss.files import read_json
from wsss.project.local import LocalCompute, ShardCounts
from wsss.runtime.registry import Kind, Registry, load_code, parse_kind
from wsss.runtime.settings import Count, Fraction, Settings, unknown_key
from wsss.stages import SECTIONS

StopAfter = Literal["cam", "pseudo_label", "segmentation"]

STAGES = tuple(SECTIONS)


def stage_kind(stage: str) -> Kind:
    """Return what the settings of a stage are: a class, or the registry that they choose from.

    Raises:
        UserError: There is no such stage.
    """
    if stage not in SECTIONS:
        raise unknown_key(stage, STAGES, where="stage", kind="stage")
    kind: Kind = load_code(SECTIONS[stage])
    return kind


def stage_settings(stage: str, values: Any, *, where: str) -> Settings:
    """Build a stage's settings from plain values.

    Raises:
        UserError: There is no such stage, or the values are not its settings.
    """
    return parse_kind(stage_kind(stage), values, where=where)


def read_stage(stage: str, path: Path) -> Settings:
    """Read a stage's settings from its JSON file, such as `results/<run>/config/cam.json`."""
    return stage_settings(stage, read_json(path), where=os.fspath(path))


def _no_default(schema: dict[str, Any]) -> None:
    schema.pop("default", None)


def _section(stage: str) -> Any:
    kind = stage_kind(stage)
    hint: Any = Annotated[Settings, kind] if isinstance(kind, Registry) else kind
    return (hint, Field(None, json_schema_extra=_no_default))


def _path(value: Any) -> Any:
    if not isinstance(value, str) or not value:
        raise PydanticCustomError("path_type", "no path")
    return value


def _tag(value: Any) -> str:
    return "<text>" if isinstance(value, str) else "<section>"


Paths = dict[str, Annotated[Path, BeforeValidator(_path)]]
Sections = create_model("Sections", __base__=Settings, **{name: _section(name) for name in STAGES})
Row = Annotated[
    Annotated[str, Tag("<text>")] | Annotated[Sections, Tag("<section>")],  # type: ignore[valid-type]
    Discriminator(_tag),
]


class Rows(Settings):
    """The rows of ablation tables."""

    q: tuple[Fraction, ...] | None = None
    """Initial q of each row of ablation_q.csv (ACR, CVPR 2023, supplementary, Table A2)."""
    variants: dict[str, Row | None] | None = None
    """Rows of ablation.csv: changed settings, another run, or null."""


class MethodRows(Settings):
    """A comparison of methods, results/<run>/methods.csv."""

    seeds: tuple[Annotated[int, Field(ge=0)], ...] | None = None
    """Seeds of every row."""
    stop_after: StopAfter | None = None
    """The last thing that is scored of every row; null: the CAMs."""
    rows: dict[str, Row | None] | None = None
    """Its rows: changed settings, another run, or null."""


class RunHeader(Settings):
    """The keys of a run beside its stages' settings."""

    root: str
    """Key of `roots`: the data set."""
    extends: str | None = None
    """Another run, whose settings this one changes."""
    stop_after: StopAfter = "segmentation"
    """The last thing that is scored: the run goes no further."""


class RunSpec(RunHeader, Sections):  # type: ignore[valid-type, misc]
    """A run: its data set, or the run that it extends, and what it changes."""

    ablations: Rows | None = None
    """Rows of its ablation tables that differ from the project's."""
    methods: MethodRows | None = None
    """The methods that it is compared with, each with several seeds."""


class ConfigFile(Settings):
    """The whole of config.yaml; a section may be empty."""

    plugins: tuple[str, ...] | None = None
    """Python files that register methods, formats or networks of one's own, by their place beside
    config.yaml."""
    compute: LocalCompute | None = None
    """How this machine computes."""
    shards: (
        Annotated[
            Annotated[Count, Tag("<number>")] | Annotated[ShardCounts, Tag("<section>")],
            Discriminator(lambda value: "<section>" if isinstance(value, dict) else "<number>"),
        ]
        | None
    ) = 1
    """How many jobs share a stage: one number for all, or one for each."""
    roots: Paths | None = None
    """Where the data sets lie."""
    weights: Paths | None = None
    """Weight files, by the keys that settings name."""
    defaults: Sections | None = None  # type: ignore[valid-type]
    """What a run gets unless it says otherwise."""
    ablations: Rows | None = None
    """The rows of a run's ablation tables."""
    runs: dict[str, RunSpec] | None = None
    """The experiments, by name."""
