"""The schema of config.yaml and its `defaults:` section, both from the settings' classes."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Mapping
from typing import Any

from wsss.project.file import STAGES, ConfigFile


def config_schema() -> dict[str, Any]:
    """Return the JSON schema of `config.yaml`; as a run inherits, it requires no key."""
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **ConfigFile.model_json_schema(),
        "title": "config.yaml",
    }
    for part in (schema, *schema["$defs"].values()):
        part.pop("required", None)
        for entry in part.get("properties", {}).values():
            entry.pop("title", None)
    return schema


def defaults_yaml() -> str:
    """Return the `defaults:` section of `config.yaml`: every setting with its comment.

    A setting without a default, which every data set states for itself, is left out.
    """
    schema = config_schema()
    sections = schema["$defs"]["Sections"]["properties"]
    lines = ["defaults:"]
    for stage in STAGES:
        section = _resolved(sections[stage], schema)
        lines += ["", f"  # {section['description'].splitlines()[0]}", f"  {stage}:"]
        lines += _default_lines(section, schema, indent=4)
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


def _resolved(entry: Mapping[str, Any], schema: Mapping[str, Any]) -> Mapping[str, Any]:
    reference = entry.get("$ref")
    return entry if reference is None else schema["$defs"][reference.rpartition("/")[2]]


def _default_lines(
    section: Mapping[str, Any], schema: Mapping[str, Any], *, indent: int
) -> list[str]:
    blank = " " * indent
    lines: list[str] = []
    for key, entry in section["properties"].items():
        inner = _resolved(entry, schema)
        if "default" not in entry and "properties" not in inner:
            continue
        comment = " ".join(entry["description"].split())
        lines += [f"{blank}# {line}" for line in textwrap.wrap(comment, 96 - indent)]
        if "properties" in inner:
            lines += [f"{blank}{key}:", *_default_lines(inner, schema, indent=indent + 2)]
        else:
            lines.append(f"{blank}{key}: {json.dumps(entry['default'], ensure_ascii=False)}")
    return lines
