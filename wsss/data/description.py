"""What a data set holds, in words: what `wsss init` and `wsss config check` print."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from wsss.data.formats.registry import IndexSettings
from wsss.data.index import Index

SHOWN_CLASSES = 40


def describe(
    settings: IndexSettings, root: Path, index: Index, masks: Mapping[str, str] | None
) -> str:
    """Return pictures, classes with counts, sets and masks, a line each.

    Args:
        settings: Format of the data set.
        root: Its folder.
        index: Its index.
        masks: Image name -> mask; None: they have not been drawn yet.
    """
    count = len(index.records)
    tags = Counter(tag for record in index.records for tag in record.tags)
    shown = [f"{name} {tags[name]}" for name in index.classes[:SHOWN_CLASSES]]
    if len(index.classes) > SHOWN_CLASSES:
        shown.append(f"and {len(index.classes) - SHOWN_CLASSES} more")
    lines = [
        f"layout:   {settings.format}, in {root}",
        f"pictures: {count}",
        f"classes:  {len(index.classes)} ({', '.join(shown)})",
    ]
    sets = []
    for name in index.sets:
        records = index.subset(name).records
        text = f"{name} {len(records)}"
        if masks:
            text += f" ({sum(record.name in masks for record in records)} with a mask)"
        sets.append(text)
    lines.append(f"sets:     {', '.join(sets)}")
    untagged = sum(not record.tags for record in index.records)
    if untagged:
        lines.append(f"untagged: {untagged}, which are not trained on")
    if masks is None:
        lines.append("masks:    not drawn yet")
    else:
        lines.append(f"masks:    {len(masks) or 'none: tags.csv scores without'}")
    return "\n".join(lines)
