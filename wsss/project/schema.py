"""What `config.yaml` may hold, generated from the settings dataclasses."""

from __future__ import annotations

import json
import textwrap
import typing
from collections.abc import Mapping
from typing import Any

from wsss.project.config import LocalCompute
from wsss.project.runs import STAGES, RunHeader, stage_class
from wsss.project.shard_counts import counts_schema
from wsss.runtime.settings import field_docs, json_schema


def config_schema() -> dict[str, Any]:
    """Return the JSON schema of `config.yaml`, generated from the dataclasses."""
    stages: dict[str, Any] = {stage: json_schema(stage_class(stage)) for stage in STAGES}
    paths = {"type": ["object", "null"], "additionalProperties": {"type": "string"}}
    header = json_schema(RunHeader)["properties"]
    sections = {stage: {"$ref": f"#/$defs/{stage}"} for stage in STAGES}
    run = {
        "type": "object",
        "additionalProperties": False,
        "properties": {**header, **sections, "ablations": {"$ref": "#/$defs/ablations"}},
    }
    changes = {"type": "object", "additionalProperties": False, "properties": sections}
    ablations = {
        "type": ["object", "null"],
        "additionalProperties": False,
        "properties": {
            "q": {
                "description": "Initial q of each row of ablation_q.csv.",
                "type": ["array", "null"],
                "items": {"type": "number", "minimum": 0, "maximum": 1},
            },
            "variants": {
                "description": "Rows of ablation.csv: changed settings, another run, or null.",
                "type": ["object", "null"],
                "additionalProperties": {"anyOf": [changes, {"type": ["string", "null"]}]},
            },
        },
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "config.yaml",
        "type": "object",
        "additionalProperties": False,
        "properties": {
            "compute": json_schema(LocalCompute),
            "shards": counts_schema(),
            "roots": paths,
            "weights": paths,
            "defaults": {
                "type": "object",
                "additionalProperties": False,
                "properties": sections,
            },
            "ablations": {"$ref": "#/$defs/ablations"},
            "runs": {"type": "object", "additionalProperties": {"$ref": "#/$defs/run"}},
        },
        "$defs": {**stages, "ablations": ablations, "run": run},
    }


def defaults_yaml() -> str:
    """Return the `defaults:` section of `config.yaml`: every setting with its comment.

    A setting without a default, which every data set states for itself, is left out.
    """
    lines = ["defaults:"]
    for stage in STAGES:
        cls = stage_class(stage)
        lines += ["", f"  # {_first_line(cls)}", f"  {stage}:"]
        lines += _default_lines(cls, _defaults(cls), indent=4)
    return "\n".join(lines) + "\n"


def replace_defaults(text: str) -> str:
    """Return the text of a `config.yaml` with its `defaults:` section written anew."""
    lines = text.splitlines(keepends=True)
    start = lines.index("defaults:\n")
    end = next(
        (i for i in range(start + 1, len(lines)) if lines[i].strip() and lines[i][0] != " "),
        len(lines),
    )
    return "".join([*lines[:start], defaults_yaml(), "\n", *lines[end:]])


def _first_line(cls: type) -> str:
    return (cls.__doc__ or "").strip().splitlines()[0]


def _defaults(cls: type) -> dict[str, Any]:
    properties = json_schema(cls)["properties"]
    return {key: entry["default"] for key, entry in properties.items() if "default" in entry}


def _default_lines(cls: type, values: Mapping[str, Any], *, indent: int) -> list[str]:
    hints = typing.get_type_hints(cls)
    docs = field_docs(cls)
    blank = " " * indent
    lines: list[str] = []
    for key, value in values.items():
        lines += [f"{blank}# {line}" for line in textwrap.wrap(docs.get(key, ""), 96 - indent)]
        if isinstance(value, Mapping):
            lines += [f"{blank}{key}:", *_default_lines(hints[key], value, indent=indent + 2)]
        else:
            lines.append(f"{blank}{key}: {json.dumps(value, ensure_ascii=False)}")
    return lines
